"""Solarised values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.random import Random
from buttress.registry import attack


@attack("solarise")
@dataclass(frozen=True, kw_only=True)
class Solarise(Corruption):
    """Bright values become their negatives, as in a photograph that saw light while it was developed.

    Severities: values above 0.8, 0.65, 0.5, 0.35 and 0.2 of the box are inverted; ours. No draws.
    """

    levels: ClassVar[tuple[float, ...]] = (0.8, 0.65, 0.5, 0.35, 0.2)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The images with their bright parts inverted."""
        low, width = self.black_and_width(x)
        return torch.where(x - low > self.strength * width, low + width - (x - low), x)
