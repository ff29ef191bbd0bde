"""The momentum iterative method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.base import Attack
from buttress.attacks.oracle import Oracle
from buttress.attacks.pgd import check_steps
from buttress.attacks.steepest import steepest_ascent, step_length
from buttress.errors import UserError
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import Threat, norms, per_row


@attack("mi-fgsm")
@dataclass(frozen=True, kw_only=True)
class MIFGSM(Attack):
    """Steps along a decaying sum of the gradients, each scaled to L1 length 1 (Dong et al., CVPR 2018).

    Starts at the input itself. Cost per input: ``steps`` forwards and backwards.

    Args:
        threat: what is allowed.
        steps: gradient steps.
        step_size: length of a step in input units; 2.5 eps / steps unless given (the paper: eps / steps).
        decay: what a step keeps of the sum so far, mu in the paper; with 0 the attack is BIM.
        loss: name of a loss, or any callable (logits, y) -> (N,); cross-entropy for classifiers unless given.
    """

    threat: Threat = Threat()
    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    loss: LossLike | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_steps(self.steps, step_size=self.step_size)
        if not 0 <= self.decay < math.inf:
            raise UserError(f"decay must be a number of 0 or more; got {self.decay}")
        if self.loss is not None:
            resolve(self.loss)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate."""
        step_size = step_length(self.threat, self.step_size, self.steps)
        total = torch.zeros_like(x)

        def momentum(grad: Tensor) -> Tensor:
            # Dividing by the largest entry first keeps the sum of tiny gradients from vanishing.
            grad = grad / per_row(norms(grad, "linf").clamp(min=torch.finfo(grad.dtype).tiny), grad)
            return total.mul_(self.decay).add_(grad / per_row(norms(grad, "l1").clamp(min=1e-30), grad))

        return steepest_ascent(
            oracle, x, x, self.threat, steps=self.steps, step_size=step_size, loss=self.loss, direction=momentum
        )
