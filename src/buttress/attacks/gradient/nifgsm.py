"""The Nesterov iterative method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from buttress.attacks.gradient.mifgsm import MIFGSM, momentum_ascent
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack


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
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
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
