"""Pixelation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.random import Random
from buttress.registry import attack


@attack("pixelate")
@dataclass(frozen=True, kw_only=True)
class Pixelate(Corruption):
    """Fewer pixels: means over a coarser grid, shown at the old size, as in Hendrycks and Dietterich (ICLR 2019).

    Severities: 95, 90, 85, 75 and 65 % of the pixels of each side, rounded down. No draws.
    """

    levels: ClassVar[tuple[float, ...]] = (0.95, 0.9, 0.85, 0.75, 0.65)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The coarser images."""
        height, width = x.shape[2:]
        few = [max(1, int(self.strength * side)) for side in (height, width)]
        return F.interpolate(F.interpolate(x, size=few, mode="area"), size=(height, width), mode="nearest")
