"""Pepper noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.corruptions.noise import Impulses, pixels
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack


@attack("pepper")
@dataclass(frozen=True, kw_only=True)
class Pepper(Impulses):
    """Pixels turned black: all channels of an image's pixel together, or single values of other inputs.

    Args:
        amount: the chance of each pixel.
        box: the range (low, high) of the values; without one, an input's own least and largest value stand for it.
    """

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs with their pepper."""
        black, _ = self.extremes(x)
        return torch.where(random.uniform(pixels(x)) < self.amount, black, x)
