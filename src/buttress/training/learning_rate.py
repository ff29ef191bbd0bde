"""The learning rate of one training, from step to step and over interruptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from buttress.training.schedule import Schedule


class LearningRate:
    """Sets an optimiser's learning rate as its schedule says.

    Args:
        schedule: a function of progress, or a class of torch that steps along.
        optimizer: of torch; its learning rate so far is the highest one.
        epochs: of the whole training.
        per_epoch: steps of an epoch.
    """

    def __init__(self, schedule: Schedule, optimizer: torch.optim.Optimizer, epochs: int, per_epoch: int) -> None:
        self.schedule, self.optimizer, self.highest = schedule, optimizer, optimizer.param_groups[0]["lr"]
        self.scheduler = schedule.build(optimizer, epochs, per_epoch)

    def before_step(self, progress: float) -> None:
        """Before the step at which a share ``progress`` of the training is done."""
        if self.scheduler is None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.highest * self.schedule.at(progress)

    def after_step(self) -> None:
        """After each step."""
        if self.scheduler is not None and self.schedule.every_step:
            self.scheduler.step()

    def after_epoch(self, accuracy: float) -> None:
        """After each epoch.

        Args:
            accuracy: of its weights on the validation split, robust where there is an attack.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(accuracy)
        elif self.scheduler is not None and not self.schedule.every_step:
            self.scheduler.step()

    def state(self) -> dict[str, Any]:
        """For a checkpoint; empty for a function of progress."""
        return {} if self.scheduler is None else self.scheduler.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned; the rate itself is in the optimiser's state."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict(dict(state))
