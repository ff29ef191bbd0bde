"""Posterised values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.random import Random
from buttress.registry import attack


@attack("posterise")
@dataclass(frozen=True, kw_only=True)
class Posterise(Corruption):
    """Few tones, as on a screen print: each value goes to the nearest of some evenly spaced ones, in each channel.

    Severities: 8, 6, 4, 3 and 2 tones, of which the darkest is black and the brightest white; ours. No draws.
    """

    levels: ClassVar[tuple[float, ...]] = (8.0, 6.0, 4.0, 3.0, 2.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The images in few tones."""
        low, width = self.black_and_width(x)
        steps = self.strength - 1
        return low + width * ((x - low) / width * steps).round() / steps
