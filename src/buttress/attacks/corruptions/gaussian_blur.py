"""Gaussian blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption, larger
from buttress.attacks.corruptions.image_operations import blurred
from buttress.random import Random
from buttress.registry import attack


@attack("gaussian-blur")
@dataclass(frozen=True, kw_only=True)
class GaussianBlur(Corruption):
    """Blur by a Gaussian, as in Hendrycks and Dietterich (ICLR 2019); no draws.

    Severities: standard deviations of 0.4, 0.6, 0.7, 0.8 and 1 pixel of an image of 32 pixels or less, growing with
    the larger side beyond that.
    """

    levels: ClassVar[tuple[float, ...]] = (0.4, 0.6, 0.7, 0.8, 1.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The blurred images."""
        return blurred(x, self.strength * larger(x))
