"""Rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.attacks.corruptions.image_operations import displaced, turning
from buttress.random import Random
from buttress.registry import attack


@attack("rotation")
@dataclass(frozen=True, kw_only=True)
class Rotation(Corruption):
    """A turn about the middle, to either side by a draw for each input; the edge goes on outside.

    Severities: 5, 10, 15, 20 and 30 degrees; up to 30 are what Engstrom et al. (ICML 2019) allow an attacker.
    """

    levels: ClassVar[tuple[float, ...]] = (5.0, 10.0, 15.0, 20.0, 30.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The turned images."""
        height, width = x.shape[2:]
        return displaced(x, turning(self.strength * random.sign((), x.dtype), (height, width)))
