"""Inverted values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from buttress.attacks.corruptions.image_operations import check_images
from buttress.attacks.corruptions.noise import Noise
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack


@attack("invert")
@dataclass(frozen=True, kw_only=True)
class Invert(Noise):
    """The negative of an image: black for white, and each colour for its opposite.

    A change of style in which every edge stays where it was. No draws and no severities: halfway all would be grey.

    Args:
        box: the range (low, high) that inputs live in; without one an input's own least and largest value stand for it.
    """

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The negatives of (N, C, H, W) images."""
        check_images(type(self).__name__, x)
        low, high = self.extremes(x)
        return self.clip(low + high - x)
