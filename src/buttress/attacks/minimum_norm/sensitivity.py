"""Short steps of one length towards the face of the linearised decision region that is nearest, and a little beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import Loss, margin, ranked
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, norms, per_row
from buttress.validation import positive, whole


@attack("sensitivity")
@dataclass(frozen=True, kw_only=True)
class Sensitivity(MinimumNorm):
    """Minimum-norm attack along rows of the input-output Jacobian (Jaroudi et al., arXiv 2205.13933), in l2.

    With z the logits, P their gradients and c the truth, each step estimates for every rival i the distance gap / ||v||
    to its face, gap = z_c - kappa z_i and v = kappa P_i - P_c, and moves by ``step_size`` along v / ||v|| of the
    nearest, clipped to the box. All steps are made; the smallest perturbation on the way that fools the model is kept.
    The authors get P from the sensitivity problem of a neural ODE; here it comes by reverse passes, for any model.
    Under a target i is that class and c its strongest rival at the point, which is the truth until a third class leads.
    A kappa other than 1 makes the estimate depend on where the logits' zero
    is. Nothing further away than ``steps`` times ``step_size``, 0.9 by default, is found: robust networks need more.

    Cost per input that is classified correctly: one forward; for each step one, and one backward for each rival looked
    at (one under a target); and one forward for the last point.

    Args:
        threat: norm "l2" and the box; the smallest perturbation found counts where it is within ``eps``.
        steps: linearisations.
        step_size: length of each step, in widths of the box; see `Threat.unit`.
        kappa: share of a rival's logit that is compared with the truth's; below 1 the face lies beyond the boundary
            where logits are positive.
        candidates: rivals looked at, those of the highest logits on the clean input; None for all, as published.
    """

    needs_classes = True

    threat: Threat = NOT_GIVEN
    steps: int = 30
    step_size: float = 0.03
    kappa: float = 0.975
    candidates: int | None = 10

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_threat("sensitivity", self.threat, "l2")
        whole("steps", self.steps)
        for name in ("step_size", "kappa"):
            positive(name, getattr(self, name))
        if self.candidates is not None:
            whole("candidates", self.candidates)

    def search_passes(self, classes: int) -> PassCount:
        """Each step a gradient for each rival, and a forward after the last."""
        rivals = classes - 1 if self.candidates is None else min(self.candidates, classes - 1)
        return PassCount(self.steps + 1, self.steps * rivals)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The smallest point on the way that fools the model; the input itself where there was none."""
        best = Smallest(oracle, self.threat)
        oracle.rest(best.settled)
        rivals, x_adv = self._rivals(oracle, y), x
        for _ in range(self.steps):
            if oracle.done:
                break
            way = self._way(oracle, x_adv, rivals)
            best.offer(x_adv)
            x_adv = self.threat.clip(x_adv + self.step_size * self.threat.unit * way, x)
        oracle.logits(x_adv)
        best.offer(x_adv)
        oracle.wake()
        return best.point

    def _rivals(self, oracle: Oracle, y: Tensor) -> Tensor:
        """(N, K) the classes to go to: those other than the truth, the highest clean logits first."""
        count = oracle.clean.shape[1] - 1
        return ranked(oracle.clean, y, count if self.candidates is None else self.candidates)

    def _way(self, oracle: Oracle, x_adv: Tensor, rivals: Tensor) -> Tensor:
        """(N, ...) the way of length 1 to the nearest face; 0 where the gradients are."""
        if oracle.target is None:
            free = self.threat.free
            _, way = oracle.nearest_face(x_adv, rivals, lambda _, value, grad: _distance(value, free(grad)), self.kappa)
        else:
            _, way = oracle.loss_and_grad(x_adv, Loss(margin, targeted=partial(_lead, kappa=self.kappa)))
        way = self.threat.free(way)
        length = norms(way, "l2")
        tiny = torch.finfo(length.dtype).tiny
        return per_row(torch.where(length > tiny, 1 / length.clamp(min=tiny), 0), way) * way


def _distance(value: Tensor, grad: Tensor) -> Tensor:
    """(N,) how far the linearised face is, below 0 on its far side; infinite where the gradient is 0."""
    length = norms(grad, "l2")
    tiny = torch.finfo(length.dtype).tiny
    return torch.where(length > tiny, -value.to(length.dtype) / length.clamp(min=tiny), math.inf)


def _lead(output: Tensor, target: Tensor, kappa: float) -> Tensor:
    """(N,) kappa times the target's logit minus the strongest other one."""
    own = output.gather(1, target[:, None]).squeeze(1)
    return kappa * own - output.scatter(1, target[:, None], -torch.inf).amax(1)
