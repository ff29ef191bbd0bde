"""CFA: class-wise calibrated fair adversarial training."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress import losses
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence, crafting_passes
from buttress.defences.base.defence import Batch, Cost, Epoch, Loss, Step, StepContext
from buttress.defences.base.memory import ClassCounts
from buttress.defences.trades import divergence_attack
from buttress.errors import UserError
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import not_negative, one_of

Method = Literal["at", "trades"]


@defence("cfa")
class CFA(CraftingDefence):
    """Adversarial training whose budget, and weight of the divergence, follow each class's robustness.

    Wei, Wang, Guo and Wang (CVPR 2023). With t_k the robust training accuracy of class k in the last epoch, inputs of
    that class are attacked with (lambda_eps + t_k) eps; under TRADES their divergence weighs beta_k = (lambda_beta +
    t_k) beta and an input's loss is (cross-entropy + beta_k divergence) / (1 + beta_k). That division is made from the
    first epoch on, as released, so that the size of the loss does not jump at ``start``. For "at" the model crafts in
    train mode, for "trades" in eval mode, as released. A class's steps shrink and grow with its budget, where the
    authors keep their length (2/255 at 8/255, which is our default at the uncalibrated eps). A class that an epoch did
    not show keeps the figures it had; on several devices the counts are those of the first, and within `AWP` those of
    the moved weights.

    The paper's third part, FAWA, is an average of weights that takes in an epoch only while the worst class's robust
    validation accuracy is high enough (0.2 in the paper, at a decay of 0.85; 0.24 and 0.88 in the authors' script): an
    averaging policy of the trainer, which goes with this or any other method.

    Cost: that of the attack plus 1 gradient of the weights per step with "at", 2 with "trades".

    Args:
        method: "at" (cross-entropy at the perturbed inputs) or "trades".
        threat: what the model is trained against, before eps is calibrated.
        steps: steps of PGD.
        step_size: their length in input units at the uncalibrated eps; 2.5 eps / steps unless given.
        lambda_eps: budget of a class without any robustness, as a share of eps; 0.5 with "at" and 0.3 with "trades"
            unless given, as in the paper (the authors' script has 0.5 for both).
        lambda_beta: the same of beta.
        beta: weight of the divergence, for "trades".
        start: epochs before budgets and weights are calibrated.
        move_statistics: whether the passes that craft for "at" move BatchNorm's running statistics, as they do in the
            authors' code.
    """

    paper = "Wei et al., CVPR 2023"
    begins = ("start",)
    robust: Tensor
    seen: Tensor

    def __init__(
        self,
        method: Method = "at",
        threat: Threat = NOT_GIVEN,
        steps: int = 10,
        step_size: float | None = None,
        lambda_eps: float | None = None,
        lambda_beta: float = 0.5,
        beta: float = 6.0,
        start: float = 10.0,
        move_statistics: bool = False,
    ) -> None:
        super().__init__()
        one_of("method", method, get_args(Method))
        numbers = {"lambda_eps": lambda_eps or 0.0, "lambda_beta": lambda_beta, "beta": beta, "start": start}
        for name, value in numbers.items():
            not_negative(name, value)
        self.method, self.threat, self.steps, self.step_size = method, threat, steps, step_size
        self.lambda_eps, self.lambda_beta, self.beta, self.start = lambda_eps, lambda_beta, beta, start
        self._set_mode("train" if method == "at" else "eval", move_statistics)
        self._attack = PGD(threat=threat, steps=steps, step_size=step_size)
        if method == "trades":
            self._attack = divergence_attack(threat, steps, step_size)
        self._make(0)

    @property
    def clean_pass(self) -> bool:
        """Whether its loss makes a clean pass: as TRADES does."""
        return self.method == "trades"

    @property
    def cost(self) -> Cost | None:
        """The attack's passes, and those of a perturbed batch and, under TRADES, of a clean one."""
        crafting = crafting_passes(self.attack, self.mode)
        return None if crafting is None else Cost(crafting, 4 if self.method == "trades" else 2)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Make room for each class's figures."""
        self._make(len(data.classes))
        return data

    def _make(self, classes: int) -> None:
        self.counts = ClassCounts(classes)
        self.register_buffer("robust", torch.zeros(classes))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))

    def eps_shares(self, epoch: float) -> Tensor:
        """(C,) share of eps that each class is attacked with at an epoch."""
        default = 0.3 if self.method == "trades" else 0.5
        return self._calibrated(default if self.lambda_eps is None else self.lambda_eps, epoch)

    def betas(self, epoch: float) -> Tensor:
        """(C,) weight of each class's divergence at an epoch."""
        return self.beta * self._calibrated(self.lambda_beta, epoch)

    def _calibrated(self, base: float, epoch: float) -> Tensor:
        calibrated = self.seen & (epoch >= self.start)
        return torch.where(calibrated, base + self.robust, torch.ones_like(self.robust))

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The mean over the batch of each input's loss at the budget and the weight of its class."""
        if not len(self.robust):
            raise UserError("class-wise training needs to know the classes: call prepare before loss")
        y = batch.y
        scale = self.eps_shares(context.epoch).to(y.device)[y]
        x_adv = self._craft(context, scale=scale)
        if self.method == "at":
            return Loss(F.cross_entropy(context.adversarial(x_adv), y))
        clean, adversarial = context.clean(batch.x), context.adversarial(x_adv)
        beta = self.betas(context.epoch).to(clean)[y]
        natural, boundary = losses.cross_entropy(clean, y), losses.kl(adversarial, clean)
        value = ((natural + beta * boundary) / (1 + beta)).mean()
        return Loss(value, {"natural": natural.mean().detach(), "boundary": boundary.mean().detach()})

    def step(self, step: Step) -> None:
        """One update; then the verdicts of its perturbed pass are counted by class."""
        super().step(step)
        logits = step.context.passes["adversarial"].logits.detach()
        self.counts.note(logits.argmax(1) == step.batch.y, step.batch.y)

    def end_epoch(self, epoch: Epoch) -> None:
        """Take over this epoch's robust accuracy of each class, and log the lowest."""
        share, seen = self.counts.take()
        self.robust, self.seen = torch.where(seen, share, self.robust), self.seen | seen
        if bool(self.seen.any()):
            epoch.figures["worst class, training"] = float(self.robust[self.seen].min())
