"""One attack at all budgets: every input at each of them, only those that stand so far, or all budgets from one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from buttress.attacks import Attack
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm
from buttress.audits.base.statistics import accuracy, median
from buttress.audits.base.subject import Subject, Timed
from buttress.engine.oracle import Stage

_POINTS = 100  # of a curve over all distances


@dataclass(frozen=True)
class Cost:
    """Passes and seconds spent on so many inputs in all, and the parts of a composed attack."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    stages: tuple[Stage, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        """Both together; the parts are not told of a sum."""
        spent = self.forwards + other.forwards, self.backwards + other.backwards
        return Cost(*spent, self.seconds + other.seconds)

    def each(self, count: int) -> dict[str, float]:
        """The mean over ``count`` inputs."""
        return {
            "forwards": self.forwards / count,
            "backwards": self.backwards / count,
            "seconds": self.seconds / count,
        }


@dataclass(frozen=True)
class Sweep:
    """What came of one attack.

    Attributes:
        stands: by budget, (N,) bool, the inputs that were right and still are.
        costs: by budget, where something was attacked for it.
        reused: by budget, how many inputs were known to be beaten from a smaller one.
        distance: (N,) float64, of a minimum-norm attack, the size of the smallest perturbation that was found for each
            input: 0 where none is needed, infinite where none was found.
    """

    stands: dict[float, Tensor]
    costs: dict[float, Cost] = field(default_factory=dict)
    reused: dict[float, int] = field(default_factory=dict)
    distance: Tensor | None = None

    @property
    def total(self) -> Cost:
        """What all budgets together cost."""
        return sum(self.costs.values(), start=Cost())


def at_budget(attack: Attack, eps: float) -> Attack:
    """The same attack under another eps; an explicit step size keeps its proportion, a wrapped attack takes the eps."""
    attack = attack.within()
    threat, step = attack.threat, attack.innermost.settings().get("step_size")
    changes: dict[str, Any] = {"threat": replace(threat, eps=eps)}
    if step is not None and math.isfinite(threat.eps) and math.isfinite(eps) and threat.eps > 0:
        changes["step_size"] = step * eps / threat.eps
    return attack.varied(**changes)


def runs(attack: Attack, budgets: Sequence[float]) -> list[Attack]:
    """The attack as it is run for these budgets: once for each, or once for all if it looks for the smallest."""
    if isinstance(attack.innermost, MinimumNorm):
        return [at_budget(attack, math.inf)]
    return [at_budget(attack, eps) for eps in budgets if eps > 0]


def sweep(subject: Subject, attack: Attack, budgets: Sequence[float], right: Tensor, *, reuse: bool) -> Sweep:
    """Attack at every budget.

    Args:
        subject: whom and on what.
        attack: its own eps does not matter.
        budgets: rising; at 0 what is right stands.
        right: (N,) bool, the inputs that the network gets right.
        reuse: whether what fell at a smaller budget counts as fallen at a larger one: the same point is allowed there.
    """
    if isinstance(attack.innermost, MinimumNorm):
        return _smallest(subject, attack, budgets, right)
    found, standing = Sweep({}), right
    for eps in budgets:
        if eps > 0:
            # The first time all are asked, so that other questions can share the answer.
            rows = standing.nonzero().squeeze(1) if reuse and found.costs else None
            success, found.costs[eps] = _beaten(subject, at_budget(attack, eps), rows)
            found.reused[eps] = 0 if rows is None else int((right & ~standing).sum())
            standing = (standing if reuse else right) & ~success
        found.stands[eps] = standing
    return found


def _beaten(subject: Subject, attack: Attack, rows: Tensor | None) -> tuple[Tensor, Cost]:
    """(N,) bool, which of ``rows`` (or of all inputs) the attack beats, and what that cost."""
    if rows is None:
        timed = subject.attacked(attack, search="first")
        return timed.outcome.success, cost(timed)
    success = torch.zeros_like(subject.y, dtype=torch.bool)
    if not len(rows):
        return success, Cost()
    timed = subject.attacked(attack, search="first", rows=rows)
    success[rows] = timed.outcome.success
    return success, cost(timed)


def _smallest(subject: Subject, attack: Attack, budgets: Sequence[float], right: Tensor) -> Sweep:
    """One run without a limit says for every budget who stands: those whose distance is larger."""
    timed = subject.attacked(at_budget(attack, math.inf), search="first")
    outcome = timed.outcome
    distance = torch.where(outcome.success, outcome.distance.double(), math.inf).masked_fill(~right, 0.0)
    stands = {eps: right & ((distance > eps) | ~distance.isfinite()) for eps in budgets}
    return Sweep(stands, {math.inf: cost(timed)}, {}, distance)


def cost(timed: Timed) -> Cost:
    """Of one run."""
    outcome = timed.outcome
    return Cost(int(outcome.forwards.sum()), int(outcome.backwards.sum()), timed.seconds, outcome.stages)


def distances(distance: Tensor, right: Tensor, seed: int) -> dict[str, Any]:
    """Of (N,) distances: their median over the inputs that were right, how many were found, and the whole curve.

    The curve has the accuracy just after each of at most 100 distances, over all inputs.
    """
    needed = distance[right]
    found = needed[needed.isfinite()].sort().values
    steps = found[torch.linspace(0, max(0, len(found) - 1), min(_POINTS, len(found))).long().to(found.device)]
    points = [0.0, *dict.fromkeys(eps for eps in steps.tolist() if eps > 0)]
    curve = [{"eps": eps, **accuracy(right & (distance > eps))} for eps in points]
    told = {"found": len(found), "right": len(needed), "curve": curve}
    return {**told, **median(needed, seed)} if len(needed) else told
