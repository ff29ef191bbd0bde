"""Brightness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import per_row


@attack("brightness")
@dataclass(frozen=True, kw_only=True)
class Brightness(Corruption):
    """All values raised or lowered by the same amount, up or down by a draw for each input.

    Severities: 0.05, 0.1, 0.15, 0.2 and 0.3 of the box, those of Hendrycks and Dietterich (ICLR 2019) for 32 pixels,
    who only raise.
    """

    levels: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.2, 0.3)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The brighter or darker images."""
        _, width = self.black_and_width(x)
        return x + self.strength * width * per_row(random.sign((), x.dtype), x)
