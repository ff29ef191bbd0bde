"""The noisy single step of N-FGSM training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.engine.perturbation import Perturbation
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat
from buttress.validation import not_negative, positive


@attack("n-fgsm")
@dataclass(frozen=True, kw_only=True)
class NFGSM(Perturbation):
    """One step from noise that is larger than the budget, and not brought back into it: for training.

    De Jorge et al., NeurIPS 2022. Noise uniform in [-k eps, k eps], put into the box; then alpha eps times the sign of
    the gradient there; then the box again. A value may move by (k + alpha) eps, so this is no attack within its threat,
    and how often it fools a model says nothing about that threat. Cost: 1 forward, 1 backward.

    Args:
        threat: gives eps and the box; linf only.
        k: the largest noise, as a multiple of eps.
        alpha: length of the step, as a multiple of eps.
        clip: bring the result back into the ball of size eps after all, to see what that does; with k = 1 it is then
            FGSM-RS.
    """

    threat: Threat = NOT_GIVEN
    k: float = 2.0
    alpha: float = 1.0
    clip: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_threat("n-fgsm", self.threat, "linf")
        if self.threat is not NOT_GIVEN and not math.isfinite(self.threat.eps):
            raise UserError(f"n-fgsm needs a finite eps; got {self.threat.eps}")
        not_negative("k", self.k)
        positive("alpha", self.alpha)

    def search_passes(self, classes: int) -> PassCount:
        """One step."""
        return PassCount(1, 1)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The point after the step."""
        start = self._within(self.k).random_start(x, random)
        _, grad = oracle.loss_and_grad(start)
        return self.threat.ascend(start, grad, self.alpha * self.threat.eps)

    def _within(self, multiple: float) -> Threat:
        """The threat with a multiple of its budget."""
        return replace(self.threat, eps=multiple * self.threat.eps)

    def _moved(self, oracle: Oracle, seed: int, ids: Tensor) -> Tensor:
        # The engine's own would project into the threat; what training shall see lies up to (k + alpha) eps away.
        x, random = oracle.x, Random(derive(seed, "attack"), ids)
        x_adv = x if oracle.done else self.points(oracle, x, oracle.y, random)
        return (self.threat if self.clip else self._within(self.k + self.alpha)).project(x_adv, x)
