"""Restored images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from buttress import losses
from buttress.errors import UserError
from buttress.losses import Loss
from buttress.registry import task
from buttress.tasks.task import Task, as_tensor


@task("denoising")
@dataclass(frozen=True)
class Denoising(Task):
    """A restored image per input; ``y`` is the clean image, of the output's shape.

    Args:
        floor: an output of a lower peak signal-to-noise ratio, in dB, counts as beaten.
    """

    floor: float = 20.0
    loss = "mse"
    score_name = "share restored"

    @property
    def right(self) -> str:
        """Completes "the inputs that are"."""
        return f"restored at {self.floor:g} dB or better"

    @property
    def meanings(self) -> dict[str, Loss]:
        """The margin is how far the ratio is below the floor, in dB."""
        return {"margin": Loss(self._below), "kl": losses.SQUARED_DIFFERENCE}

    def read(self, output: object) -> Tensor:
        """The restored images."""
        return as_tensor(output, "the restored images")

    def check(self, output: Tensor, y: Tensor) -> None:
        """The truth must have the output's shape.

        Raises:
            UserError: naming both shapes.
        """
        if output.shape != y.shape:
            raise UserError(f"the restored images are {tuple(output.shape)}, the clean ones {tuple(y.shape)}")

    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Below the floor; or, with a target image, at or above the floor as seen from that image."""
        if target is not None:
            return self.score(output, target) >= self.floor
        return ~(self.score(output, y) >= self.floor)  # an output that is not a number, too

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """Peak signal-to-noise ratio in dB, for images in [0, 1]."""
        return -10 * losses.mse(output, y).clamp(min=1e-12).log10()

    def words(self, y: Tensor, names: Sequence[str]) -> str:
        """An image is not put into words."""
        return "image"

    def _below(self, output: Tensor, y: Tensor) -> Tensor:
        return self.floor - self.score(output, y)
