"""CSA: cost-sensitive adversarial training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress import losses
from buttress.attacks import Perturbation
from buttress.attacks.gradient.fgsm import FGSM
from buttress.data.class_names import ClassName, class_indices
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import crafting_passes
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, Step, StepContext
from buttress.defences.base.pretraining import descend
from buttress.defences.cost_sensitive.cost_matrix import (
    Mistakes,
    check_protected,
    check_weights,
    cost_matrix,
    expected_cost,
)
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.random import Random, derive
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat

Space = Literal["pixels", "normalized"]


@dataclass(frozen=True, kw_only=True)
class StandardisedFGSM(Attack):
    """One sign step of eps standard deviations of each channel, not clipped to the box.

    Args:
        threat: linf, its eps that of the widest channel in input units, without a box.
        share: (channels,) each channel's part of that eps.
        loss: what is raised.
    """

    threat: Threat = NOT_GIVEN
    share: Tensor = field(default_factory=lambda: torch.ones(1))
    loss: losses.LossLike | None = None

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The input after its one step."""
        _, grad = oracle.loss_and_grad(x, self.loss)
        share = self.share.to(x).view(1, -1, *[1] * (x.dim() - 2))
        return x + share * self.threat.ascend(torch.zeros_like(x), grad, self.threat.eps)


@defence("csa")
class CSA(Defence):
    """Cost-sensitive adversarial training that protects some classes.

    Shen, Chen, Wang and Wang (arXiv 2101.12372), by the authors' code: from a network trained with FGSM on, each batch
    makes two updates along cross-entropy plus expected cost, first at the clean inputs, then at FGSM's points, which
    raise the same objective. The authors clip nothing and state eps in standardised units: ``space="normalized"`` with
    eps 0.3 is theirs. Their network before takes a clean and an FGSM update a batch; here both are one update.

    With ``updates=1`` both terms are added up, crafted from the same weights, in one update: what wrappers need that
    compare the clean pass with the perturbed one, and what `loss` is outside of a step.

    Cost: 1 gradient of the inputs and 2 of the weights per step, and ``pretrain_epochs`` of about the same before.

    Args:
        protected: the classes to protect, by name or index. The authors train one network per class.
        c: cost of a mistake about them, where any other costs 1.
        mistakes: about which: "both", as published, where a protected class is true or is predicted. There the more
            frequent kind, other classes taken for it, may outweigh its own, so that it is predicted less than before;
            "missed" counts only mistakes in which it is true, "false" only those in which it is predicted.
        weight: of the expected cost beside the cross-entropy.
        threat: what FGSM may do; in "normalized" space its norm must be linf, its eps counts standard deviations of
            the training split's channels, and its box is left out. The data being unknown before, validation then
            is clean unless it is given an attack.
        space: what eps is measured in.
        updates: 2 as published, or 1.
        pretrain_epochs: of FGSM training before, by Adam; 0 goes on from the network as it is.
        pretrain_lr: learning rate of that.
    """

    paper = "Shen et al., arXiv 2101.12372"
    preparation = "trains the network by FGSM"
    clean_pass = True
    keeps_inputs = True
    index: Tensor

    def __init__(
        self,
        protected: ClassName | Sequence[ClassName] = (0,),
        c: float = 10.0,
        mistakes: Mistakes = "both",
        weight: float = 1.0,
        threat: Threat = NOT_GIVEN,
        space: Space = "pixels",
        updates: Literal[1, 2] = 2,
        pretrain_epochs: int = 30,
        pretrain_lr: float = 1e-3,
    ) -> None:
        super().__init__()
        check_weights(weight, pretrain_epochs, pretrain_lr)
        if space not in get_args(Space) or updates not in (1, 2):
            raise UserError(f"space must be pixels or normalized and updates 1 or 2; got {space!r} and {updates}")
        self.threat = threat
        if space == "normalized" and self.threat.norm != "linf":
            raise UserError(f"eps in standard deviations needs the norm linf; got {self.threat.norm}")
        if space == "normalized" and (self.threat.mask is not None or self.threat.shares is not None):
            raise UserError(f"csa in normalized space moves all features alike; got {self.threat.text()}: use pixels")
        self.protected, self.c, self.weight = check_protected(protected, c, mistakes), c, weight
        self.space, self.updates, self.mistakes = space, updates, mistakes
        self.pretrain_epochs, self.pretrain_lr = pretrain_epochs, pretrain_lr
        self.register_buffer("index", torch.zeros(0, dtype=torch.int64))
        self._attack = None if space == "normalized" else self._fgsm(())
        self._phase: Literal["clean", "adversarial"] | None = None  # of the update that a step is at

    @property
    def perturbed_pass(self) -> bool:
        """Whether each update makes a perturbed pass: where there is one a batch."""
        return self.updates == 1

    @property
    def attack(self) -> Perturbation | None:
        """FGSM on the objective; in "normalized" space None before `prepare`."""
        return self._attack

    @property
    def cost(self) -> Cost | None:
        """One step of FGSM, a clean and a perturbed batch."""
        crafting = crafting_passes(FGSM(threat=self.threat))
        return None if crafting is None else Cost(crafting, 4)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Look the protected classes up, fix what FGSM may do, and train the network with FGSM on cross-entropy."""
        self.index = torch.tensor(class_indices(self.protected, data.classes), device=self.index.device)
        self._attack = self._fgsm(data.std)
        if self.pretrain_epochs:
            self._pretrain(model, data, seed)
        return data

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        """(N,) cross-entropy plus the weighted expected cost."""
        costs = cost_matrix(logits.shape[1], self.index.to(logits.device), self.c, self.mistakes)
        return losses.cross_entropy(logits, y) + self.weight * expected_cost(logits, y, costs)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The mean objective at the clean inputs, at FGSM's points, or, outside of a step, the sum of both."""
        if self._attack is None:
            raise UserError("eps in standard deviations needs those of the data: call prepare before loss")
        terms = {}
        if self._phase != "adversarial":
            terms["clean objective"] = self.objective(context.clean(batch.x), batch.y).mean()
        if self._phase != "clean":
            x_adv = context.craft(self._attack)
            terms["adversarial objective"] = self.objective(context.adversarial(x_adv), batch.y).mean()
        # Figures are averaged over updates, so those that only every other update has are not logged.
        logs = {name: term.detach() for name, term in terms.items()} if self._phase is None else {}
        return Loss(torch.stack([*terms.values()]).sum(), logs)

    def step(self, step: Step) -> None:
        """Two updates, the second from points crafted after the first; or one."""
        if self.updates == 1:
            return super().step(step)
        try:
            for phase in ("clean", "adversarial"):
                self._phase = phase
                step.update(step.loss())
        finally:
            self._phase = None

    def _fgsm(self, std: Sequence[float]) -> Attack:
        loss = losses.Loss(self.objective, direction=losses.log_odds_against)
        return self._plain(std, loss)

    def _plain(self, std: Sequence[float], loss: losses.LossLike | None = None) -> Attack:
        if self.space == "pixels":
            return FGSM(threat=self.threat, loss=loss)
        widest = max(std)
        threat = Threat(norm="linf", eps=self.threat.eps * widest, box=None)
        return StandardisedFGSM(threat=threat, share=torch.tensor([value / widest for value in std]), loss=loss)

    def _pretrain(self, model: nn.Module, data: Dataset, seed: int) -> None:
        fgsm, flags = self._plain(data.std), [(module, module.training) for module in model.modules()]
        first = next(model.parameters())

        def objective(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            x = x.to(first.dtype)
            x_adv = fgsm.craft(model, x, y, seed=seed, ids=ids)
            return F.cross_entropy(call_model(model, x), y) + F.cross_entropy(call_model(model, x_adv), y)

        model.train()
        descend(
            [p for p in model.parameters() if p.requires_grad],
            objective,
            data.train,
            epochs=self.pretrain_epochs,
            seed=derive(seed, "csa"),
            lr=self.pretrain_lr,
            device=first.device,
        )
        model.zero_grad()  # what the training before left behind
        for module, flag in flags:
            module.training = flag
