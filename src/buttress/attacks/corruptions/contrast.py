"""Contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.attacks.corruptions.image_operations import contrasted
from buttress.random import Random
from buttress.registry import attack


@attack("contrast")
@dataclass(frozen=True, kw_only=True)
class Contrast(Corruption):
    """Less contrast: values drawn towards the mean of their image, as in Hendrycks and Dietterich (ICLR 2019).

    Severities: 0.75, 0.5, 0.4, 0.3 and 0.15 of the distance to the mean are left. The mean is that of all channels; no
    draws.
    """

    levels: ClassVar[tuple[float, ...]] = (0.75, 0.5, 0.4, 0.3, 0.15)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The flatter images."""
        return contrasted(x, self.strength)
