"""DDN: the direction of the perturbation and its norm, each adapted by itself."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, norms, per_row
from buttress.validation import number, positive, whole

log = logging.getLogger(__name__)


@attack("ddn")
@dataclass(frozen=True, kw_only=True)
class DDN(MinimumNorm):
    """Decoupled direction and norm (Rony et al., CVPR 2019, algorithm 1), in l2.

    A gradient step of the task's loss turns the perturbation; then it is given a radius that shrinks by ``gamma``
    after an adversarial point, and grows by ``gamma`` after one that is not. Step lengths decrease from 1 to
    0.01 along a cosine; like the first radius they are in widths of the box, or in input units where there is none.

    The radius ends at ``radius (1 - gamma)^steps`` or above, 0.006 widths of the box unless told otherwise: where a
    network is beaten by less, the distances found are too long, more steps are needed, and a warning says so.

    Cost per input: ``steps`` forwards and backwards, and two forwards: one clean, one for the last point. An input that
    is misclassified unperturbed costs the clean one only.

    Args:
        threat: norm "l2" and the box; the smallest perturbation found counts where it is within ``eps``.
        steps: gradient steps.
        gamma: by what share the radius changes in a step.
        radius: the first radius.
        levels: values that a pixel can take, evenly spaced over the box; perturbations are rounded to whole levels, as
            in the paper with 256. None, the default, does not round.
    """

    threat: Threat = NOT_GIVEN
    steps: int = 100
    gamma: float = 0.05
    radius: float = 1.0
    levels: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_threat("DDN", self.threat, "l2")
        whole("steps", self.steps)
        number("gamma", self.gamma, "(0, 1)")  # else a radius would end at once
        positive("radius", self.radius)
        if self.levels is not None:
            whole("levels", self.levels, 2)
        if self.levels is not None and self.threat is not NOT_GIVEN and self.threat.box is None:
            raise UserError("levels divide the box, and there is none; give a box, or no levels")

    def search_passes(self, classes: int) -> PassCount:
        """Each step's, and a forward at the last point."""
        return PassCount(self.steps + 1, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The smallest perturbation met on the way that fools the model."""
        best, unit = Smallest(oracle, self.threat), self.threat.unit
        spare = directed(self.threat.free(random.normal(x.shape[1:], x.dtype)))  # followed where the gradient is zero
        farthest = self.threat.farthest(x)
        delta, x_adv = torch.zeros_like(x), x
        radius = torch.full(x.shape[:1], self.radius * unit, dtype=x.dtype, device=x.device)
        oracle.rest(best.settled)
        for step in range(self.steps):
            if oracle.done:
                break
            grad = self.threat.free(oracle.loss_and_grad(x_adv)[1])
            best.offer(x_adv)
            grad = torch.where(per_row(norms(grad, "linf") > 0, grad), directed(grad), spare)
            delta = delta + cosine(1.0, 0.01, step, self.steps) * unit * grad
            radius = torch.where(oracle.success, radius * (1 - self.gamma), radius * (1 + self.gamma))
            radius = torch.minimum(radius, farthest)
            delta = per_row(radius, delta) * directed(delta)
            x_adv = self._rounded(self.threat.clip(x + delta, x), x)
            delta = x_adv - x
        least = self.radius * unit * (1 - self.gamma) ** self.steps
        shrinking = int((oracle.alive & ~best.settled & (radius <= 1.0001 * least)).sum())
        if shrinking:
            text = (
                "%s's radius was still shrinking for %d of %d inputs, whose distances are too long: give it more steps"
            )
            log.warning(text, self.label(), shrinking, len(x))
        oracle.logits(x_adv)
        best.offer(x_adv)
        oracle.wake()
        return best.point

    def _rounded(self, x_adv: Tensor, x: Tensor) -> Tensor:
        if self.levels is None:
            return x_adv
        level = self.threat.widths(x) / (self.levels - 1)
        return self.threat.clip(x + ((x_adv - x) / level.where(level > 0, 1)).round() * level, x)


def directed(delta: Tensor) -> Tensor:
    """Each row at l2 length 1; rows of zeros stay."""
    tiny = torch.finfo(delta.dtype).tiny
    delta = delta / per_row(norms(delta, "linf").clamp(min=tiny), delta)  # so that no square vanishes
    return delta / per_row(norms(delta, "l2").clamp(min=tiny), delta)


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """A setting's value at ``step`` of ``steps``, on half a cosine from ``first`` towards ``last``."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
