"""FMN: fast minimum-norm, a radius that follows the boundary while the perturbation climbs the margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.ddn import corner, cosine, directed, width
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Norm, Threat, check_threat, norms, per_row
from buttress.validation import number, positive, whole

_DUAL: dict[Norm, Norm] = {"l2": "l2", "linf": "l1", "l1": "linf"}
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

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The smallest perturbation met on the way that fools the model."""
        norm, unit, best = self.threat.norm, width(self.threat), Smallest(oracle, self.threat)
        farthest = corner(self.threat, x)
        radius, x_adv = torch.zeros_like(farthest), x
        oracle.rest(best.settled)
        for step in range(self.steps):
            if oracle.done:
                break
            gap, grad = oracle.loss_and_grad(x_adv, "margin")
            best.offer(x_adv)
            gamma = cosine(self.gamma, min(self.gamma, _LAST_GAMMA), step, self.steps)
            slope = norms(grad, _DUAL[norm]).clamp(min=torch.finfo(x.dtype).tiny)
            to_boundary = norms(x_adv - x, norm) + gap.abs() / slope + _BEYOND * unit
            # What the box cuts off a perturbation must not keep the ball small for ever.
            to_boundary = torch.maximum(to_boundary, radius * (1 + gamma))
            searching = torch.where(best.successful, radius * (1 + gamma), to_boundary)
            shrunk = torch.minimum(radius * (1 - gamma), best.distance.to(radius.dtype))
            radius = torch.minimum(torch.where(oracle.success, shrunk, searching), farthest)
            length = unit * cosine(self.step_size, self.step_size / 100, step, self.steps)
            x_adv = self.threat.clip(x + onto_ball(x_adv + length * directed(grad) - x, radius, norm))
        oracle.logits(x_adv)
        best.offer(x_adv)
        oracle.wake()
        return best.point


def onto_ball(delta: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """The nearest point, by l2, in each row's own ball of (N,) ``radius``; l1 by sorting (Duchi et al., ICML 2008)."""
    if norm == "linf":
        limit = per_row(radius, delta)
        return torch.clamp(delta, -limit, limit)
    if norm == "l2":
        return delta * per_row((radius / norms(delta, "l2").clamp(min=1e-30)).clamp(max=1), delta)
    size = delta.flatten(1).abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - radius[:, None]
    rank = torch.arange(1, size.shape[1] + 1, device=size.device, dtype=size.dtype)
    count = (ordered * rank > excess).sum(1, keepdim=True).clamp(min=1)
    shrink = (excess.gather(1, count - 1) / count).clamp(min=0)
    return delta.sign() * (size - shrink).clamp(min=0).view_as(delta)
