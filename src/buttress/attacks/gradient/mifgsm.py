"""The momentum iterative method, and the loop of all methods with momentum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.gradient.steepest_ascent import step_length
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, norms, per_row
from buttress.validation import not_negative, positive, whole


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
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
    """

    threat: Threat = NOT_GIVEN
    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    loss: LossLike | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        not_negative("decay", self.decay)
        if self.loss is not None:
            resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """A forward and a backward each step."""
        return PassCount(self.steps, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate."""
        return momentum_ascent(self, oracle, x, lambda x_adv, *_: oracle.loss_and_grad(x_adv, self.loss)[1])


def momentum_ascent(
    attack: MIFGSM, oracle: Oracle, x: Tensor, gradient: Callable[[Tensor, Tensor, float], Tensor]
) -> Tensor:
    """The last iterate of MI-FGSM from ``x`` where ``gradient`` gives each step's gradient.

    Args:
        attack: says what is allowed, how many steps of which size, and the decay.
        oracle: whose inputs they are.
        x: (N, ...) inputs.
        gradient: (iterate, decaying sum so far, step size) -> (N, ...); the sum is 0 in the first step.
    """
    step_size = step_length(attack.threat, attack.step_size, attack.steps)
    x_adv, total, project = x, torch.zeros_like(x), attack.threat.projector(x)
    for _ in range(attack.steps):
        if oracle.done:
            break
        grad = attack.threat.free(gradient(x_adv, total, step_size))
        # Dividing by the largest entry first keeps the sum of tiny gradients from vanishing.
        grad = grad / per_row(norms(grad, "linf").clamp(min=torch.finfo(grad.dtype).tiny), grad)
        total = total * attack.decay + grad / per_row(norms(grad, "l1").clamp(min=1e-30), grad)
        x_adv = project(attack.threat.ascend(x_adv, total, step_size))
    return x_adv
