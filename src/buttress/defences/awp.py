"""Adversarial weight perturbation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from buttress.defences.base.defence import Cost, Defence, Loss, Step
from buttress.defences.base.wrapper import WrapperDefence
from buttress.engine.preserved_model import preserved
from buttress.registry import defence
from buttress.validation import not_negative


@defence("awp")
class AWP(WrapperDefence):
    """Any base, its gradient taken at weights that were moved towards a higher loss.

    Wu, Xia and Wang, NeurIPS 2020, algorithm 1: each weight tensor of two or more dimensions moves by ``gamma`` times
    its norm along the gradient of the base's loss, at the examples crafted for the weights as they are; the gradient
    there updates those weights.

    Released with gamma 0.01 and no warm-up around adversarial training, and with gamma 0.005 from the tenth epoch on
    (here ``warmup=9``) around TRADES; the defaults are the one's warm-up and the other's gamma.

    Cost over the base: one more evaluation of its loss, without the crafting.

    Args:
        base: the training method underneath.
        gamma: size of the move relative to each weight tensor.
        warmup: epochs, a fraction perhaps, before weights are moved.
    """

    paper = "Wu et al., NeurIPS 2020"
    begins = ("warmup",)

    def __init__(self, base: Defence | None = None, gamma: float = 0.005, warmup: float = 0.0) -> None:
        super().__init__(base)
        not_negative("gamma", gamma)
        not_negative("warmup", warmup)
        self.gamma, self.warmup = gamma, warmup

    @property
    def cost(self) -> Cost | None:
        """The base's, with its loss taken twice."""
        base = self.base.cost
        return None if base is None else Cost(base.crafting, 2 * base.training, 2 * base.objectives)

    def step(self, step: Step) -> None:
        """The base's step, with the gradient of each of its losses taken at moved weights."""
        self.base.step(step if self.gamma == 0 or step.context.epoch < self.warmup else _Moved(step, self.gamma))


class _Moved:
    """A step whose losses are taken at moved weights, and whose weights are back when they are updated."""

    def __init__(self, step: Step, gamma: float) -> None:
        self.step, self.gamma = step, gamma
        self.batch, self.model, self.optimizer, self.context = step.batch, step.model, step.optimizer, step.context
        self.before: list[Tensor] = []

    @property
    def weights(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad and p.dim() > 1]

    def loss(self) -> Loss:
        weights = self.weights
        with self.context.craft_once():
            with preserved(
                self.model, "train", self.context.seed, self.batch.x.device
            ):  # BatchNorm sees the batch once
                slopes = self.step.gradients(self.step.loss(), weights)
            self.before = [weight.detach().clone() for weight in weights]
            with torch.no_grad():
                for weight, slope in zip(weights, slopes, strict=True):
                    if slope is not None:
                        weight.add_(self.gamma * weight.norm() / slope.norm().clamp(min=1e-12) * slope)
            try:
                return self.step.loss()
            except BaseException:
                self._back()
                raise

    def backward(self, loss: Loss) -> None:
        try:
            self.step.backward(loss)
        finally:
            self._back()

    def gradients(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        try:
            return self.step.gradients(loss, parameters)
        finally:
            self._back()  # whoever moves weights around this one starts from where they were

    def apply(self) -> None:
        self.step.apply()

    def update(self, loss: Loss) -> None:
        self.backward(loss)
        self.apply()

    def _back(self) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, self.before, strict=True):
                weight.copy_(value)
