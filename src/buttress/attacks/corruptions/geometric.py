"""Corruptions that move pixels: rotation, translation, elastic deformation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.attacks.corruptions.image_operations import blurred, displaced, turning
from buttress.random import Random
from buttress.registry import attack


@attack("rotation")
@dataclass(frozen=True, kw_only=True)
class Rotation(Corruption):
    """A turn about the middle, to either side by a draw for each input; the edge is repeated outside.

    Severities: 5, 10, 15, 20 and 30 degrees; up to 30 are what Engstrom et al. (ICML 2019) allow an attacker.
    """

    levels: ClassVar[tuple[float, ...]] = (5.0, 10.0, 15.0, 20.0, 30.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The turned images."""
        height, width = x.shape[2:]
        return displaced(x, turning(self.strength * random.sign((), x.dtype), (height, width)))


_WAYS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


@attack("translation")
@dataclass(frozen=True, kw_only=True)
class Translation(Corruption):
    """A shift by whole pixels in one of eight directions, by a draw for each input; the edge is repeated outside.

    Severities: 4, 7, 10, 13 and 16 % of each side, rounded, at least one pixel: 1, 2, 3, 4 and 4 of 28 pixels. Engstrom
    et al. (ICML 2019) allow an attacker about 10 %.
    """

    levels: ClassVar[tuple[float, ...]] = (0.04, 0.07, 0.1, 0.13, 0.16)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The shifted images."""
        height, width = x.shape[2:]
        far = torch.tensor([max(1, round(self.strength * side)) for side in (width, height)], device=x.device)
        way = torch.tensor(_WAYS, device=x.device)[random.integers(len(_WAYS))]
        return displaced(x, (way * far).to(x.dtype)[:, :, None, None])


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
