"""Translation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.attacks.corruptions.image_operations import displaced
from buttress.random import Random
from buttress.registry import attack

_WAYS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


@attack("translation")
@dataclass(frozen=True, kw_only=True)
class Translation(Corruption):
    """A shift by whole pixels in one of eight directions, by a draw for each input; the edge goes on outside.

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
