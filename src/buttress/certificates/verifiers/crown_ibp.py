"""CROWN-IBP: intervals within, linear bounds of the margins."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from buttress.certificates.bounds.linear import least_and_slope, least_by_intervals
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.registry import verifier


@verifier("crown-ibp")
@dataclass(frozen=True, kw_only=True)
class CROWNIBP(Verifier):
    """Linear bounds of the margins over intervals of all values within (Zhang et al., ICLR 2020).

    The larger of both bounds of each margin, this and that of the intervals alone, since both hold. Cost: a pass of
    intervals and one back to the input for each class.
    """

    def bound(self, problem: Problem) -> Answer:
        """One pass of intervals, and one backward of linear bounds."""
        network, intervals = problem.network, problem.intervals
        least, slope = least_and_slope(network, problem.region, problem.margins, intervals)
        by_intervals = least_by_intervals(network, problem.margins, intervals, problem.region)
        return Answer(torch.maximum(least, by_intervals), problem.region.minimiser(slope))
