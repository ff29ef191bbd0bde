"""One attack at all budgets: every input at each of them, only those robust so far, or all budgets from one run."""

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
        """Both together; a sum has no parts."""
        passes = self.forwards + other.forwards, self.backwards + other.backwards
        return Cost(*passes, self.seconds + other.seconds)

    def each(self, count: int) -> dict[str, float]:
        """The mean over ``count`` inputs."""
        return {
            "forwards": self.forwards / count,
            "backwards": self.backwards / count,
            "seconds": self.seconds / count,
        }


@dataclass(frozen=True)
class Sweep:
    """The result of one attack at all budgets.

    Attributes:
        robust: by budget, (N,) bool, the inputs that are classified correctly, under the attack too.
        costs: by budget, where something was attacked for it.
        reused: by budget, for how many inputs the attack was successful at a smaller one already.
        distance: (N,) float64, of a minimum-norm attack, the size of the smallest successful perturbation of each
            input: 0 where none is needed, infinite where none was found.
    """

    robust: dict[float, Tensor]
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


def sweep(subject: Subject, attack: Attack, budgets: Sequence[float], correct: Tensor, *, reuse: bool) -> Sweep:
    """Attack at every budget.

    Args:
        subject: the network and its inputs.
        attack: its own eps does not matter.
        budgets: rising; at 0 the correct inputs are robust.
        correct: (N,) bool, the inputs that the network classifies correctly.
        reuse: whether a success at a smaller budget counts at a larger one as well: the same point is allowed there.
    """
    if isinstance(attack.innermost, MinimumNorm):
        return _sweep_by_distance(subject, attack, budgets, correct)
    result, robust_so_far = Sweep({}), correct
    for eps in budgets:
        if eps > 0:
            # The first time all are attacked, so that other audits can share the result.
            rows = robust_so_far.nonzero().squeeze(1) if reuse and result.costs else None
            success, result.costs[eps] = _success_at(subject, at_budget(attack, eps), rows)
            result.reused[eps] = 0 if rows is None else int((correct & ~robust_so_far).sum())
            robust_so_far = (robust_so_far if reuse else correct) & ~success
        result.robust[eps] = robust_so_far
    return result


def _success_at(subject: Subject, attack: Attack, rows: Tensor | None) -> tuple[Tensor, Cost]:
    """(N,) bool, for which of ``rows`` (or of all inputs) the attack is successful, and what that cost."""
    if rows is None:
        timed = subject.attacked(attack, search="first")
        return timed.outcome.success, cost(timed)
    success = torch.zeros(len(subject.y), dtype=torch.bool, device=subject.y.device)
    if not len(rows):
        return success, Cost()
    timed = subject.attacked(attack, search="first", rows=rows)
    success[rows] = timed.outcome.success
    return success, cost(timed)


def _sweep_by_distance(subject: Subject, attack: Attack, budgets: Sequence[float], correct: Tensor) -> Sweep:
    """One run without a limit gives the robust inputs at every budget: those with a larger distance."""
    timed = subject.attacked(at_budget(attack, math.inf), search="first")
    outcome = timed.outcome
    distance = torch.where(outcome.success, outcome.distance.double(), math.inf).masked_fill(~correct, 0.0)
    robust = {eps: correct & ((distance > eps) | ~distance.isfinite()) for eps in budgets}
    return Sweep(robust, {math.inf: cost(timed)}, {}, distance)


def cost(timed: Timed) -> Cost:
    """Of one run."""
    outcome = timed.outcome
    return Cost(int(outcome.forwards.sum()), int(outcome.backwards.sum()), timed.seconds, outcome.stages)


def distances(distance: Tensor, correct: Tensor, seed: int) -> dict[str, Any]:
    """Of (N,) distances: their median over the correct inputs, how many were found, and the whole curve.

    The curve has the accuracy just after each of at most 100 distances, over all inputs.
    """
    needed = distance[correct]
    finite = needed[needed.isfinite()].sort().values
    steps = finite[torch.linspace(0, max(0, len(finite) - 1), min(_POINTS, len(finite))).long().to(finite.device)]
    points = [0.0, *dict.fromkeys(eps for eps in steps.tolist() if eps > 0)]
    curve = [{"eps": eps, **accuracy(correct & (distance > eps))} for eps in points]
    summary = {"found": len(finite), "right": len(needed), "curve": curve}
    return {**summary, **median(needed, seed)} if len(needed) else summary
