"""Branch and bound over the sides of activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.certificates.branching.descent import descended
from buttress.certificates.branching.search import Effort, Search
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.certificates.verifiers.alpha_crown import AlphaCROWN
from buttress.registry import verifier
from buttress.validation import not_negative, positive, whole

_TARGETS = 5  # margins of an input, the lowest ones, from whose bounds counterexamples are looked for
_DESCENT = 20  # steps of that


@verifier("branch-and-bound")
@dataclass(frozen=True, kw_only=True)
class BranchAndBound(Verifier):
    """alpha-CROWN first, then on ever smaller parts of the region (beta-CROWN, Wang et al., NeurIPS 2021).

    The part with the lowest bound is split where an activation of linear pieces bends. Each half is bounded by linear
    functions with optimised slopes and Lagrange multipliers of its sides. Where few activations of a part are left
    open, a mixed-integer program solves it, so that given time the answer is exact for networks of linear pieces in
    linf and l1; a maximum is not split, but left to that program. In l2, and with other activations, the bounds need
    not meet. Before, and from each part, inputs are looked for that are wrong, which end the search. Differs
    from the released code in that intervals within stay those of CROWN.

    Args:
        time_limit: seconds for each input; then its bounds are what they are.
        subproblems: parts that are bounded of each input at most.
        gap: go on until the margin is known within this, whatever the verdict; None to stop at the verdict.
        steps: of Adam for each part.
        lr: its learning rate.
        leaf: activations left open in a part at which a mixed-integer program solves it; 0 to split all.
        tried: activations whose two sides are bounded before one is split.
        at_once: parts that are split together.
    """

    time_limit: float = 30.0
    subproblems: int = 10_000
    gap: float | None = None
    steps: int = 5
    lr: float = 0.2
    leaf: int = 16
    tried: int = 1
    at_once: int = 32

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for name in ("time_limit", "lr"):
            positive(name, getattr(self, name))
        for name in ("subproblems", "steps", "tried", "at_once"):
            whole(name, getattr(self, name))
        if self.gap is not None:
            not_negative("gap", self.gap)
        whole("leaf", self.leaf, 0)

    def bound(self, problem: Problem) -> Answer:
        """All inputs by alpha-CROWN and by descent, then one after the other those without a verdict."""
        before = AlphaCROWN().bound(problem)
        assert before.candidates is not None
        margins, points = before.margins.clone(), self._points(problem, before.margins, before.candidates)
        least = problem.met(points)
        open_ = (margins.amin(0) <= problem.rounding) & (least >= 0)
        if self.gap is not None:
            open_ = least - margins.amin(0) > self.gap
        effort = Effort(
            seconds=self.time_limit,
            most=self.subproblems,
            at_once=self.at_once,
            steps=self.steps,
            lr=self.lr,
            leaf=self.leaf,
            tried=self.tried,
            gap=self.gap,
        )
        for row in open_.nonzero().squeeze(1).tolist():
            place = torch.tensor([row], device=problem.x.device)
            intervals = {ref: (low[place], high[place]) for ref, (low, high) in problem.tightened.items()}
            search = Search(problem.of_rows(place), intervals, effort, points[place])
            margins[:, row] = search.margins(margins[:, row])
            points[row] = search.point[0]
        return Answer(margins, points[None])

    def _points(self, problem: Problem, margins: Tensor, candidates: Tensor) -> Tensor:
        """(N, ...) the best points from where the lowest bounds are met (S, N, ...)."""
        rows = margins.argsort(0)[:_TARGETS]
        own = candidates[-len(margins) :]
        starts = own.gather(0, rows.view(*rows.shape, *[1] * (own.dim() - 2)).expand(-1, -1, *own.shape[2:]))
        starts = torch.cat([problem.x[None], starts])
        found = descended(problem, starts, _DESCENT)
        met = torch.stack([problem.met(point) for point in found])
        return found[met.argmin(0), torch.arange(len(problem.x), device=problem.x.device)]
