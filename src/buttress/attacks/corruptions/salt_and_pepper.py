"""Salt-and-pepper noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.corruptions.noise import Impulses, pixels
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack


@attack("salt-and-pepper")
@dataclass(frozen=True, kw_only=True)
class SaltAndPepper(Impulses):
    """Pixels turned white or black: all channels of an image's pixel together, or single values of other inputs.

    Args:
        amount: the chance of each pixel to be turned; white and black are equally likely.
        box: the range (low, high) of the values; without one, an input's own least and largest value stand for it.
    """

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs with their salt and pepper."""
        black, white = self.extremes(x)
        draw = random.uniform(pixels(x))
        return torch.where(draw < self.amount / 2, black, torch.where(draw < self.amount, white, x))
