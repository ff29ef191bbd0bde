"""Elastic deformation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.attacks.corruptions.image_operations import blurred, displaced
from buttress.random import Random
from buttress.registry import attack


@attack("elastic")
@dataclass(frozen=True, kw_only=True)
class Elastic(Corruption):
    """A smooth random displacement of pixels, its own for each input (Simard et al., ICDAR 2003).

    Each component is uniform noise under a Gaussian of a tenth of the larger side, brought to a root mean square of
    the severity. Severities: 1, 2, 3, 4 and 5 % of the larger side.
    """

    levels: ClassVar[tuple[float, ...]] = (0.01, 0.02, 0.03, 0.04, 0.05)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The deformed images."""
        height, width = x.shape[2:]
        field = blurred(2 * random.uniform((2, height, width), x.dtype) - 1, max(height, width) / 10)
        size = field.square().mean((2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        return displaced(x, field * (self.strength * max(height, width)) / size)
