"""The single step from a random start of "fast" adversarial training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from buttress.attacks.gradient.steepest_ascent import steepest_ascent
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import positive


@attack("fgsm-rs")
@dataclass(frozen=True, kw_only=True)
class FGSMRS(Attack):
    """One step from a uniform start in the threat (Wong, Rice and Kolter, ICLR 2020). Cost: 1 forward, 1 backward.

    Args:
        threat: what is allowed.
        alpha: length of the step, as a multiple of eps; above 2 it equals FGSM with noise that the clipping removes.
    """

    threat: Threat = NOT_GIVEN
    alpha: float = 1.25

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        positive("alpha", self.alpha)
        if self.threat is not NOT_GIVEN and not math.isfinite(self.threat.eps):
            raise UserError(f"fgsm-rs needs a finite eps; got {self.threat.eps}")

    def search_passes(self, classes: int) -> PassCount:
        """One step."""
        return PassCount(1, 1)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The point after the step."""
        start = self.threat.random_start(x, random)
        return steepest_ascent(
            oracle, x, start, self.threat, steps=1, step_size=self.alpha * self.threat.eps, loss=None
        )
