"""Uniform noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from buttress.attacks.corruptions.noise import Noise
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack
from buttress.validation import not_negative


@attack("uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform(Noise):
    """Independent noise on every value, uniform in [-eps, eps].

    Args:
        eps: its largest size, in input units.
        box: the range (low, high) that inputs live in and the result is clipped to, or None for no limit.
    """

    eps: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        not_negative("eps", self.eps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The noisy inputs."""
        return self.clip(x + self.eps * (2 * random.uniform(x.shape[1:], x.dtype) - 1))
