"""The search over the branches of one input."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from buttress.certificates.bounds.linear import Intervals
from buttress.certificates.branching.branches import Branches
from buttress.certificates.branching.relaxation import Relaxation
from buttress.certificates.branching.units import Units
from buttress.certificates.mixed_integer.encoding import Encoding, encodable
from buttress.certificates.verifier import Problem


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How a search goes on, and when it ends.

    Attributes:
        seconds: after which it ends.
        most: branches that are bounded.
        at_once: branches that are bounded together.
        steps: of Adam for each branch.
        lr: its learning rate.
        leaf: units left open below which a branch is solved as a mixed-integer program.
        tried: units whose sides are bounded to choose the one to split.
        gap: between the bound and the smallest margin met, at which the search ends; None to end at a verdict.
    """

    seconds: float
    most: int
    at_once: int
    steps: int
    lr: float
    leaf: int
    tried: int
    gap: float | None


class Search:
    """Best-first search over the branches of one input.

    Args:
        problem: one input.
        intervals: of what its operations take that are not affine.
        effort: how long.
        point: (1, ...) an allowed input, the best known.
    """

    def __init__(self, problem: Problem, intervals: Intervals, effort: Effort, point: Tensor) -> None:
        self.problem, self.effort = problem, effort
        self.units = Units(problem.network, intervals)
        self.relaxation = Relaxation(problem, self.units)
        self.point, self.least = point, float(problem.met(point))
        self.encodable = encodable(problem.network, problem.region)
        self.end = time.monotonic() + effort.seconds

    def margins(self, bounds: Tensor) -> Tensor:
        """(K - 1,) lower bounds of the margins, where ``bounds`` are known already."""
        root = self.relaxation.root(bounds)
        done, waiting, count = list[Branches](), self._bounded(root), len(root)
        while not self._over(count):
            closed = self._closed(waiting.bounds)
            done.append(waiting[closed])
            now, waiting = waiting[~closed].lowest(self.effort.at_once)
            if not len(now):
                break
            scores = self.relaxation.scores(now)
            left = (scores > -torch.inf).sum(1)
            leaf = left <= (self.effort.leaf if self.encodable else 0)
            done.append(self._exactly(now[leaf]))
            children = self._children(now[~leaf], scores[~leaf])
            count += len(children)
            waiting = Branches.joined([waiting, self._bounded(children)])
        ends = Branches.joined([*done, waiting])
        found = torch.full_like(bounds, torch.inf).scatter_reduce(0, ends.margins, ends.bounds, "amin")
        # A bound above the margin at the centre is of programs that rounding made infeasible, and says nothing.
        values = self.problem.margins.slopes[self.problem.graph.result][:, 0].flatten(1) @ self.problem.logits[0]
        return torch.where(found <= values + self.problem.rounding, found, bounds)

    def _over(self, count: int) -> bool:
        falsified = self.effort.gap is None and self.least < 0
        return falsified or count >= self.effort.most or time.monotonic() >= self.end

    @property
    def _enough(self) -> float:
        """The bound above which a branch is not split."""
        if self.effort.gap is None:
            return float(self.problem.rounding)
        return self.least - self.effort.gap

    def _closed(self, bounds: Tensor) -> Tensor:
        return bounds > self._enough

    def _bounded(self, branches: Branches) -> Branches:
        """With optimised bounds where they are not high enough; the points where they are met are inputs to try."""
        closed = self._closed(branches.bounds)
        parts, waiting = [branches[closed]], branches[~closed]
        for places in torch.split(torch.arange(len(waiting), device=closed.device), 2 * self.effort.at_once):
            if not len(places):
                break
            part, points = self.relaxation.optimised(waiting[places], self.effort.steps, self.effort.lr, self._enough)
            self._try(points)
            parts.append(part)
        return Branches.joined(parts)

    def _children(self, branches: Branches, scores: Tensor) -> Branches:
        """Both sides of a unit each: of those with the highest scores that whose worse side is bounded best.

        Filtered smart branching (De Palma et al., 2021): the sides are bounded with what is known of their parent.
        """
        if not len(branches):
            return branches
        tried = scores.topk(min(self.effort.tried, scores.shape[1]), dim=1).indices
        families = [branches.children(units) for units in tried.T]
        bounded = [self.relaxation.bound(family) for family in families]
        worse = torch.stack([torch.minimum(*family.bounds.chunk(2)) for family in bounded])
        worse = torch.where(-torch.inf < scores.gather(1, tried).T, worse, -torch.inf)
        chosen = tried.gather(1, worse.argmax(0)[:, None])[:, 0]
        best = worse.argmax(0).repeat(2)
        bounds = torch.stack([family.bounds for family in bounded]).gather(0, best[None])[0]
        return replace(branches.children(chosen), bounds=bounds)

    def _exactly(self, branches: Branches) -> Branches:
        """Branches by a mixed-integer program each, of what is open; as they are of networks that have none."""
        if not self.encodable:
            return branches
        bounds = branches.bounds.clone()
        for row in range(len(branches)):
            place = torch.tensor([row], device=bounds.device)
            branch = self.units.assumed(branches.sides[place])
            encoding = Encoding(self.problem.network, self.problem.region, self.units.intervals, branch)
            margins = self.problem.margins
            solution = encoding.least(margins, int(branches.margins[row]), self.end - time.monotonic())
            bounds[row] = max(float(bounds[row]), solution.least)
            point = encoding.input(solution)
            if point is not None:
                self._try(point)
        return replace(branches, bounds=bounds)

    def _try(self, points: Tensor) -> None:
        """Keep the point with the smallest margin."""
        places = torch.zeros(len(points), dtype=torch.long, device=points.device)
        met = self.problem.of_rows(places).met(points)
        if float(met.min()) < self.least:
            self.point, self.least = points[met.argmin()][None], float(met.min())
