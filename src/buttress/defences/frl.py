"""FRL: fair robust learning by reweighting, and perhaps larger budgets, of the classes that do worst."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress import losses
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Epoch, Loss, StepContext
from buttress.defences.base.verdicts import Verdicts, judge
from buttress.errors import UserError
from buttress.random import derive
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import not_negative, whole

LARGEST_SUM = 0.5  # of the multipliers of one term
NARROWEST, WIDEST = 0.98, 2.5  # share of eps that remargin may give to a class


def multipliers(before: Tensor, errors: Tensor, overall: float, rate: float, tolerance: float) -> Tensor:
    """(C,) Lagrange multipliers after one more look at the errors: projected ascent, then scaled to a sum of 0.5.

    Args:
        before: (C,) multipliers so far.
        errors: (C,) error of each class.
        overall: error over all inputs.
        rate: length of the step along how far a class's error exceeds the overall one plus ``tolerance``.
        tolerance: by how much a class may be worse for nothing.
    """
    after = (before + rate * (errors - overall - tolerance)).clamp(min=0)
    return after * (LARGEST_SUM / after.sum().clamp(min=LARGEST_SUM))


def class_weights(multiplier: Tensor) -> Tensor:
    """(C,) weight of each class: 1 / C + (1 - 1 / C) of its multiplier - 1 / C of each other one. They sum to 1."""
    return (1 - multiplier.sum()) / len(multiplier) + multiplier


@defence("frl")
class FRL(CraftingDefence):
    """TRADES whose classes weigh more where their validation error exceeds the overall one, for fine-tuning.

    Xu, Liu, Li, Jain and Tang (ICML 2021), reweighting, by the authors' code: after each epoch the natural error and
    the boundary error (right, but not under attack) of each class are measured on the validation split; multipliers
    rise by how far they exceed the overall error by more than ``tolerance`` and weigh the cross-entropy and the
    divergence of the class's inputs, each on its own. Weights are multiplied by the number of classes, so that without
    any multiplier the loss is that of TRADES; what the authors state for ten classes is taken as 1 / C.

    Made for a network that is robust already: the authors fine-tune for 40 epochs with a learning rate of 0.001. The
    validation split steers training here and so judges its epochs too kindly. With ``remargin`` the budget of a class
    grows with its boundary error as well: exp(2 m) eps, between 0.98 and 2.5 of it; that m follows the boundary error
    by ``remargin_rate`` and stays within the range where it has an effect is our choice.

    Cost: that of TRADES; after each epoch one attack on the validation inputs.

    Args:
        threat: what the model is trained against.
        steps: steps of the attack in training, and of PGD on the validation split.
        step_size: their length in input units; 2.5 eps / steps unless given.
        beta: weight of the divergence.
        natural_rate: step of the multipliers of the natural error.
        boundary_rate: step of those of the boundary error.
        tolerance: by how much the error of a class may exceed the overall one.
        remargin: whether the budget of a class grows, too.
        remargin_rate: step of its exponent.
        validate_on: validation inputs judged after each epoch, at most, stratified.
    """

    paper = "Xu et al., ICML 2021"
    trained = 4.0
    clean_pass = True
    natural: Tensor
    boundary: Tensor
    margin: Tensor

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        steps: int = 10,
        step_size: float | None = None,
        beta: float = 1.5,
        natural_rate: float = 0.05,
        boundary_rate: float = 0.1,
        tolerance: float = 0.1,
        remargin: bool = False,
        remargin_rate: float = 0.1,
        validate_on: int = 1000,
    ) -> None:
        super().__init__()
        numbers = {"beta": beta, "natural_rate": natural_rate, "boundary_rate": boundary_rate, "tolerance": tolerance}
        for name, value in {**numbers, "remargin_rate": remargin_rate}.items():
            not_negative(name, value)
        whole("validate_on", validate_on)
        self.threat, self.steps, self.step_size, self.beta = threat, steps, step_size, beta
        self.natural_rate, self.boundary_rate, self.tolerance = natural_rate, boundary_rate, tolerance
        self.remargin, self.remargin_rate, self.validate_on = remargin, remargin_rate, validate_on
        self._attack = PGD(threat=threat, steps=steps, step_size=step_size, start="normal", loss="kl")
        self._make(0)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Make room for each class's multipliers."""
        self._make(len(data.classes))
        return data

    def _make(self, classes: int) -> None:
        for name in ("natural", "boundary", "margin"):
            self.register_buffer(name, torch.zeros(classes))

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean of both terms over the batch, each input weighted as its class."""
        if not len(self.natural):
            raise UserError("class-wise training needs to know the classes: call prepare before loss")
        y, classes = batch.y, len(self.natural)
        scale = self.eps_shares().to(y.device)[y] if self.remargin else None
        x_adv = context.craft(self._attack, scale=scale)
        clean, adversarial = context.clean(batch.x), context.adversarial(x_adv)
        first, second = (classes * class_weights(m).to(clean)[y] for m in (self.natural, self.boundary))
        natural = (first * F.cross_entropy(clean, y, reduction="none")).mean()
        boundary = (second * losses.kl(adversarial, clean)).mean()
        return Loss(natural + self.beta * boundary, {"natural": natural.detach(), "boundary": boundary.detach()})

    def eps_shares(self) -> Tensor:
        """(C,) share of eps that each class is attacked with under ``remargin``."""
        return (2 * self.margin).exp().clamp(NARROWEST, WIDEST)

    def end_epoch(self, epoch: Epoch) -> None:
        """Measure both errors of each class on the validation split and move the multipliers."""
        seed = derive(epoch.seed, "frl")
        split = epoch.data.val.stratified(self.validate_on, seed)
        verdicts = judge(
            epoch.model, split, PGD(threat=self.threat, steps=self.steps, step_size=self.step_size), seed, self.task
        )
        self.adjust(verdicts.y, verdicts.clean, verdicts.robust)
        share, seen = verdicts.share(verdicts.robust, len(self.natural))
        epoch.figures["worst class, validation"] = float(share[seen].min())

    def adjust(self, y: Tensor, clean: Tensor, robust: Tensor) -> None:
        """Move the multipliers by verdicts on inputs: (N,) classes, (N,) bool right, (N,) bool right under attack.

        A class without inputs counts as one with the overall error.
        """
        verdicts = Verdicts(y, clean, robust)
        errors = {"natural": ~clean, "boundary": clean & ~robust}
        overall = {name: float(wrong.float().mean()) for name, wrong in errors.items()}
        by_class = {}
        for name, wrong in errors.items():
            share, seen = verdicts.share(wrong, len(self.natural))
            by_class[name] = torch.where(seen, share, overall[name]).to(self.natural)
        for name, rate in (("natural", self.natural_rate), ("boundary", self.boundary_rate)):
            before = self.get_buffer(name)
            setattr(self, name, multipliers(before, by_class[name], overall[name], rate, self.tolerance))
        excess = by_class["boundary"] - overall["boundary"] - self.tolerance
        low, high = math.log(NARROWEST) / 2, math.log(WIDEST) / 2
        self.margin = (self.margin + self.remargin_rate * excess).clamp(low, high)
