"""FMN: fast minimum-norm, a radius that follows the boundary while the perturbation climbs the margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.ddn import cosine, directed
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, norms, per_row
from buttress.threat.geometry import project_rows_l1
from buttress.validation import number, positive, whole

_LAST_GAMMA = 0.001  # what gamma decreases to, as published
_BEYOND = 1e-4  # of a width of the box: a ball that only touches the boundary of a linear model would never cross it


@attack("fmn")
@dataclass(frozen=True, kw_only=True)
class FMN(MinimumNorm):
    """Fast minimum-norm attack (Pintor et al., NeurIPS 2021, algorithm 1), in l1, l2 and linf.

    Steps along the margin's gradient, scaled to l2 length 1, each projected onto a ball of the threat's norm. Before
    the first success the ball reaches to the boundary of the linearised model; after that it shrinks by ``gamma``
    after an adversarial point (to the smallest found at most), and grows by ``gamma`` after one that is not.
    Step size and gamma decrease along a cosine, to a hundredth of ``step_size`` and to 0.001. Our choice: before the
    first success, too, the ball grows by ``gamma`` at least; as published it comes to rest inside of the boundary where
    the box cuts much of the perturbation off, and nothing is found.

    Cost per input: ``steps`` forwards and backwards, and two forwards: one clean, one for the last point. An input that
    is misclassified unperturbed costs the clean one only.

    Args:
        threat: the norm and the box; the smallest perturbation found counts where it is within ``eps``.
        steps: gradient steps.
        step_size: l2 length of the first step, in widths of the box, or in input units where there is none.
        gamma: by what share the radius changes in the first step.
    """

    threat: Threat = NOT_GIVEN
    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_threat("FMN", self.threat, "l1", "l2", "linf")
        whole("steps", self.steps)
        positive("step_size", self.step_size)
        number("gamma", self.gamma, "(0, 1)")

    def search_passes(self, classes: int) -> PassCount:
        """Each step's, and a forward at the last point."""
        return PassCount(self.steps + 1, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The smallest perturbation met on the way that fools the model."""
        unit, best = self.threat.unit, Smallest(oracle, self.threat)
        farthest = self.threat.farthest(x)
        radius, x_adv = torch.zeros_like(farthest), x
        oracle.rest(best.settled)
        for step in range(self.steps):
            if oracle.done:
                break
            gap, grad = oracle.loss_and_grad(x_adv, "margin")
            best.offer(x_adv)
            grad = self.threat.free(grad)
            gamma = cosine(self.gamma, min(self.gamma, _LAST_GAMMA), step, self.steps)
            slope = self.threat.dual(grad).clamp(min=torch.finfo(x.dtype).tiny)
            to_boundary = self.threat.distance(x_adv, x).to(x.dtype) + gap.abs() / slope + _BEYOND * unit
            # What the box cuts off a perturbation must not keep the ball small for ever.
            to_boundary = torch.maximum(to_boundary, radius * (1 + gamma))
            searching = torch.where(best.successful, radius * (1 + gamma), to_boundary)
            shrunk = torch.minimum(radius * (1 - gamma), best.distance.to(radius.dtype))
            radius = torch.minimum(torch.where(oracle.success, shrunk, searching), farthest)
            length = unit * cosine(self.step_size, self.step_size / 100, step, self.steps)
            moved = x_adv + length * directed(grad) - x
            x_adv = self.threat.clip(x + onto_ball(moved, radius, self.threat), x)
        oracle.logits(x_adv)
        best.offer(x_adv)
        oracle.wake()
        return best.point


def onto_ball(delta: Tensor, radius: Tensor, threat: Threat) -> Tensor:
    """The nearest point, by l2, in each row's own ball of (N,) ``radius`` in the threat's norm."""
    if threat.norm == "linf":
        limit = per_row(radius, delta) * threat.shared(torch.ones_like(delta))
        return torch.clamp(delta, -limit, limit)
    if threat.norm == "l2":
        return delta * per_row((radius / norms(delta, "l2").clamp(min=1e-30)).clamp(max=1), delta)
    return project_rows_l1(delta.flatten(1), radius[:, None]).view_as(delta)
