"""The exact least margin, by mixed-integer programming."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.certificates.bounds.linear import Intervals
from buttress.certificates.mixed_integer.encoding import Encoding, check_encodable
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.certificates.verifiers.crown import CROWN
from buttress.registry import verifier
from buttress.validation import positive


@verifier("exact")
@dataclass(frozen=True, kw_only=True)
class Exact(Verifier):
    """The least margin itself, as the optimum of a mixed-integer linear program (Tjeng et al., ICLR 2019), by HiGHS.

    For networks of linear pieces (ReLU and its relatives, clamp, abs, maxima) in linf and l1. Each function gets binary
    variables where CROWN's intervals leave it open. Classes are taken in the order of CROWN's bounds; one whose bound
    is above the smallest margin met so far needs no program. The margin is the solver's lower bound, less its
    tolerances of optimality (see `Program.least`); when time is up that bound holds as well, and the input may stay
    unknown. Cost: up to exponential in the number of open units; made for a few hundred.

    Args:
        time_limit: seconds for each input.

    Raises:
        UserError: in l2, and for a layer that is not made of linear pieces, naming it.
    """

    time_limit: float = 60.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        positive("time_limit", self.time_limit)

    def bound(self, problem: Problem) -> Answer:
        """Input by input."""
        check_encodable(problem.network, problem.region)
        before = CROWN().bound(problem)
        assert before.candidates is not None
        margins, candidates = before.margins.clone(), list[Tensor]()
        for row in range(len(problem.x)):
            place = torch.tensor([row], device=problem.x.device)
            intervals = {ref: (low[place], high[place]) for ref, (low, high) in problem.tightened.items()}
            one = problem.of_rows(place)
            margins[:, row], best = self._one(one, intervals, margins[:, row], before.candidates[:, row])
            candidates.append(best)
        return Answer(margins, torch.stack(candidates)[None])

    def _one(self, problem: Problem, intervals: Intervals, margins: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """(K - 1,) margins of one input, and the best candidate (...)."""
        end = time.monotonic() + self.time_limit
        margins, met = margins.clone(), problem.of_rows(points.new_zeros(len(points), dtype=torch.long)).met(points)
        best, least = points[met.argmin()], float(met.min())
        encoding = Encoding(problem.network, problem.region, intervals)
        for row in margins.argsort().tolist():
            left = end - time.monotonic()
            if float(margins[row]) > least or left <= 0:
                break
            solution = encoding.least(problem.margins, row, left)
            # No region is empty: what seems infeasible is so by rounding, and says nothing.
            if solution.least < torch.inf:
                margins[row] = max(float(margins[row]), solution.least)
            point = encoding.input(solution)
            if point is not None and float(problem.met(point)) < least:
                best, least = point[0], float(problem.met(point))
        return margins, best
