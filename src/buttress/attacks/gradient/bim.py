"""The basic iterative method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from buttress.attacks.gradient.steepest_ascent import steepest_ascent, step_length
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import positive, whole


@attack("bim")
@dataclass(frozen=True, kw_only=True)
class BIM(Attack):
    """Steps of the fast gradient sign method from the input itself (Kurakin et al., ICLR 2017 workshop).

    Projected gradient descent without its random start. Cost per input: ``steps`` forwards and backwards.

    Args:
        threat: what is allowed.
        steps: gradient steps; in the paper min(255 eps + 4, 1.25 * 255 eps).
        step_size: length of a step in input units; 2.5 eps / steps unless given (the paper: 1/255).
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
    """

    threat: Threat = NOT_GIVEN
    steps: int = 10
    step_size: float | None = None
    loss: LossLike | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        if self.loss is not None:
            resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """A forward and a backward each step."""
        return PassCount(self.steps, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate."""
        step_size = step_length(self.threat, self.step_size, self.steps)
        return steepest_ascent(oracle, x, x, self.threat, steps=self.steps, step_size=step_size, loss=self.loss)
