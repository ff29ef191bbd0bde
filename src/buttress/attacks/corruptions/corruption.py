"""What the common corruptions share: a severity from 1 to 5, images, and the box."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.attacks.corruptions.image_operations import check_images
from buttress.attacks.corruptions.noises import Noise
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.validation import whole

MOST_SEVERE = 5


@dataclass(frozen=True, kw_only=True)
class Corruption(Noise):
    """A common corruption of images, not adversarial, in five severities.

    Args:
        severity: 1 to 5.
        box: the range (low, high) that inputs live in; without one each input's own least and largest value are
            black and white, and nothing is clipped.

    Attributes:
        levels: the strength of each severity, in the unit that the corruption's own text names.
    """

    severity: int = 3
    levels: ClassVar[tuple[float, ...]]

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        whole("severity", self.severity, 1, MOST_SEVERE)

    @property
    def strength(self) -> float:
        """The level of this severity."""
        return self.levels[self.severity - 1]

    @abstractmethod
    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The corrupted images of (N, C, H, W) ones; clipping to the box follows."""

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The corrupted inputs."""
        check_images(type(self).__name__, x)
        return self.clip(self.corrupt(x, random))

    def black_and_width(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest value and how far the highest lies above it, (N, 1, 1, 1) or one number for all."""
        low, high = self.extremes(x)
        return low, torch.where(high > low, high - low, torch.ones_like(high))


def larger(x: Tensor) -> float:
    """How many times images are larger than 32 pixels, for which lengths in pixels are meant; 1 for smaller ones."""
    return max(1.0, max(x.shape[2:]) / 32)
