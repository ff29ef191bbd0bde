"""The Nesterov iterative method, and the loop that the methods with momentum share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.mifgsm import MIFGSM
from buttress.attacks.oracle import Oracle
from buttress.attacks.steepest import step_length
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import norms, per_row


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
        grad = gradient(x_adv, total, step_size)
        # Dividing by the largest entry first keeps the sum of tiny gradients from vanishing.
        grad = grad / per_row(norms(grad, "linf").clamp(min=torch.finfo(grad.dtype).tiny), grad)
        total = total * attack.decay + grad / per_row(norms(grad, "l1").clamp(min=1e-30), grad)
        x_adv = project(attack.threat.ascend(x_adv, total, step_size))
    return x_adv


@attack("ni-fgsm")
@dataclass(frozen=True, kw_only=True)
class NIFGSM(MIFGSM):
    """MI-FGSM with the gradient taken where the momentum leads (Lin et al., ICLR 2020, algorithm 1).

    The place looked at is x + step_size * decay * g. In linf, g is the decaying sum scaled as in the authors' program:
    each gradient divided by the mean size of its entries. (The paper divides by their sum, which leaves a step too
    short to matter.) In l2 and l1, which the paper does not treat, it is a step of that length along the sum.

    Cost per input: ``steps`` forwards and backwards.

    Args:
        threat: what is allowed.
        steps: gradient steps.
        step_size: length of a step in input units; 2.5 eps / steps unless given (the paper: eps / steps).
        decay: what a step keeps of the sum so far, mu in the paper; with 0 the attack is BIM.
        loss: name of a loss, or any callable (logits, y) -> (N,); cross-entropy for classifiers unless given.
    """

    strays = True  # the place looked at may be outside

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate."""

        def ahead(x_adv: Tensor, total: Tensor, step_size: float) -> Tensor:
            length = step_size * self.decay
            if self.threat.norm == "linf":
                there = x_adv + length * x_adv[0].numel() * total
            else:
                there = self.threat.ascend(x_adv, total, length)
            return oracle.loss_and_grad(there, self.loss)[1]

        return momentum_ascent(self, oracle, x, ahead)
