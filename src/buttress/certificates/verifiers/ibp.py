"""Interval bound propagation."""

from __future__ import annotations

from dataclasses import dataclass

from buttress.certificates.bounds.linear import least_by_intervals
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.registry import verifier


@verifier("ibp")
@dataclass(frozen=True, kw_only=True)
class IBP(Verifier):
    """Intervals from layer to layer, the margins folded into the last one (Gowal et al., 2018).

    About twice the cost of a forward pass, and loose for networks that were not trained for it.
    """

    def bound(self, problem: Problem) -> Answer:
        """One pass of intervals."""
        return Answer(least_by_intervals(problem.network, problem.margins, problem.intervals, problem.region))
