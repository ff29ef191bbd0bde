"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from buttress.attacks.gradient.steepest_ascent import reach, steepest_ascent
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat


@attack("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step as long as the budget from the input itself (Goodfellow et al., ICLR 2015).

    In linf this is the sign of the gradient; in l2 and l1 the threat's own steepest step. Cost per input: one forward
    and one backward.

    Args:
        threat: what is allowed.
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
    """

    threat: Threat = NOT_GIVEN
    loss: LossLike | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown loss."""
        if self.loss is not None:
            resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """One step."""
        return PassCount(1, 1)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The input after its one step."""
        return steepest_ascent(oracle, x, x, self.threat, steps=1, step_size=reach(self.threat), loss=self.loss)
