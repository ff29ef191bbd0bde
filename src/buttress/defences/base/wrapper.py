"""Defences that wrap another one, their base: whatever they do not override is the base's."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from buttress.attacks import Perturbation
from buttress.data.dataset import Dataset
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.base.defence import Batch, Cost, Defence, Epoch, Loss, Step, StepContext
from buttress.errors import UserError


class WrapperDefence(Defence):
    """A defence that wraps a base, `AdversarialTraining` unless given; a subclass overrides what it changes.

    Args:
        base: the training method underneath.

    Raises:
        UserError: for a base that is no defence.
    """

    def __init__(self, base: Defence | None = None) -> None:
        super().__init__()
        if base is not None and not isinstance(base, Defence):
            raise UserError(f"base must be a defence; got {base!r}")
        self.base: Defence = base if base is not None else AdversarialTraining()

    @property
    def needs_classes(self) -> bool:
        """False: the base is asked by itself."""
        return False

    @property
    def clean_pass(self) -> bool:
        """Whether the base's loss makes a clean pass."""
        return self.base.clean_pass

    @property
    def perturbed_pass(self) -> bool:
        """Whether the base's objectives make a perturbed pass."""
        return self.base.perturbed_pass

    @property
    def paired(self) -> bool:
        """Whether the base's passes can be compared row by row."""
        return self.base.paired

    @property
    def own_classes(self) -> bool:
        """Whether the base's logits are judged by the batch's classes alone."""
        return self.base.own_classes

    @property
    def preparation(self) -> str:
        """What the base trains before."""
        return self.base.preparation

    @property
    def cost_hangs_on(self) -> str:
        """What the base's cost hangs on."""
        return self.base.cost_hangs_on

    @property
    def attack(self) -> Perturbation | None:
        """The base's attack."""
        return self.base.attack

    @property
    def cost(self) -> Cost | None:
        """The base's cost."""
        return self.base.cost

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """As the base does."""
        return self.base.prepare(model, data, seed)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The base's loss."""
        return self.base.loss(model, batch, context)

    def step(self, step: Step) -> None:
        """As the base does."""
        self.base.step(step)

    def end_epoch(self, epoch: Epoch) -> None:
        """As the base does."""
        self.base.end_epoch(epoch)

    def finish(self, model: nn.Module, data: Dataset, seed: int) -> None:
        """As the base does."""
        self.base.finish(model, data, seed)

    def save(self, folder: Path) -> None:
        """As the base does."""
        self.base.save(folder)
