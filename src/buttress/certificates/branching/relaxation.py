"""Bounds of branches: CROWN with slopes and Lagrange multipliers that are optimised."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from buttress.certificates.bounds.linear import Functions, Intervals, LinearBound, linear_bound
from buttress.certificates.bounds.region import Region
from buttress.certificates.branching.branches import Branches
from buttress.certificates.branching.units import Units
from buttress.certificates.network.graph import Ref
from buttress.certificates.verifier import Problem

_DECAY = 0.98  # of the learning rate, each step


class Relaxation:
    """Lower bounds of one input's margins on branches (beta-CROWN, Wang et al., NeurIPS 2021).

    A side, z >= c, is a constraint; for every multiplier b >= 0 the margin less b (z - c) is no larger than the margin
    where it holds, and is bounded by linear functions back to the input like the margin itself. Multipliers and the
    slopes below units are optimised together. Intervals of activations stay those of the whole region, but for the
    unit's own side, as in the released code's default.

    Args:
        problem: one input.
        units: its units.
    """

    def __init__(self, problem: Problem, units: Units) -> None:
        self.problem, self.units = problem, units
        (self.result, self.rows), *_ = problem.margins.slopes.items()

    def root(self, bounds: Tensor) -> Branches:
        """The whole region, for each margin; ``bounds`` (K - 1,) of these."""
        count, units = len(bounds), self.units.count
        below, above = self.units.room(self.units.intervals)
        return Branches(
            bounds,
            torch.arange(count, device=bounds.device),
            torch.zeros(count, units, dtype=torch.int8, device=bounds.device),
            (above >= below).to(bounds).expand(count, -1),
            bounds.new_zeros(count, units),
        )

    def bound(self, branches: Branches) -> Branches:
        """The same with the bounds of their slopes and multipliers, where these are higher."""
        least = self._line(branches, self.units.split(branches.sides)).least(self._region(len(branches)))[0]
        return replace(branches, bounds=torch.maximum(branches.bounds, least))

    def optimised(self, branches: Branches, steps: int, lr: float, enough: float) -> tuple[Branches, Tensor]:
        """The same with optimised slopes and multipliers, and (B, ...) the points where the bounds are met.

        Args:
            branches: with slopes and multipliers to start from.
            steps: of Adam.
            lr: its learning rate; times 0.98 at each step.
            enough: a bound above which a branch needs no better one.
        """
        region, intervals = self._region(len(branches)), self.units.split(branches.sides)
        best = replace(branches, bounds=torch.full_like(branches.bounds, -torch.inf))
        points = torch.zeros_like(region.x)
        with torch.enable_grad():
            slopes, multipliers = (part.clone().requires_grad_() for part in (best.slopes, best.multipliers))
            optimiser = torch.optim.Adam([slopes, multipliers], lr=lr)
            for step in range(steps + 1):
                line = self._line(replace(branches, slopes=slopes, multipliers=multipliers), intervals)
                least = line.least(region)[0]
                better = least.detach() > best.bounds
                rows = better[:, None]
                best = replace(
                    best,
                    bounds=torch.where(better, least.detach(), best.bounds),
                    slopes=torch.where(rows, slopes.detach(), best.slopes),
                    multipliers=torch.where(rows, multipliers.detach(), best.multipliers),
                )
                shape = better.view(-1, *[1] * (points.dim() - 1))
                points = torch.where(shape, region.minimiser(line.slope.detach())[0], points)
                if step == steps or not slopes.numel() or bool((best.bounds > enough).all()):
                    break
                optimiser.param_groups[0]["lr"] = lr * _DECAY**step
                slopes.grad, multipliers.grad = torch.autograd.grad(
                    -least.sum(), [slopes, multipliers], allow_unused=True, materialize_grads=True
                )
                optimiser.step()
                slopes.data.clamp_(0, 1)
                multipliers.data.clamp_(min=0)
        return replace(best, bounds=torch.maximum(best.bounds, branches.bounds)), points

    def scores(self, branches: Branches) -> Tensor:
        """(B, units) about how much the two sides of each unit add to the bound; -infinite where it is decided.

        The change of the bound with both ends of the unit's interval, each times how far a side would move it: to first
        order what the sides add. Of a ReLU between l and u whose coefficient is -a this is a u (-l) / (u - l), the
        score of Bunel et al. (JMLR 2020, BaBSR); it is defined of any operation. The shorter room breaks ties.
        """
        if not self.units.count:
            return branches.bounds.new_zeros(len(branches), 0)
        intervals = self.units.split(branches.sides)
        refs = [block.ref for block in self.units.blocks]
        with torch.enable_grad():
            ends = [end.requires_grad_() for ref in dict.fromkeys(refs) for end in intervals[ref]]
            least = self._line(branches, intervals).least(self._region(len(branches))).sum()
            grads = torch.autograd.grad(least, ends, allow_unused=True, materialize_grads=True)
        pairs = dict(zip(dict.fromkeys(refs), zip(grads[::2], grads[1::2], strict=True), strict=True))
        moved = {ref: (low.detach(), high.detach()) for ref, (low, high) in intervals.items()}
        below, above = self.units.room(moved)
        rise = torch.cat([block.at(pairs[block.ref][0]) for block in self.units.blocks], 1)
        fall = torch.cat([block.at(pairs[block.ref][1]) for block in self.units.blocks], 1)
        score = rise.clamp(min=0) * below - fall.clamp(max=0) * above
        score = score + torch.finfo(score.dtype).eps * torch.minimum(below, above)
        return torch.where(self.units.open(moved), score, -torch.inf)

    def _line(self, branches: Branches, intervals: Intervals) -> LinearBound:
        """Linear functions of the input below the branches' margins, with their constraints."""
        slopes: dict[Ref, Tensor] = {self.result: self.rows[branches.margins, 0][None]}
        offset = branches.bounds.new_zeros(1, len(branches))
        weights = branches.sides * branches.multipliers
        for block in self.units.blocks:
            weight, like = block.of(weights), intervals[block.ref][0]
            offset = offset + (weight * block.corners).sum(1)
            added = block.spread(-weight, like)[None]
            slopes[block.ref] = slopes[block.ref] + added if block.ref in slopes else added
        lines = _Slopes(self.problem, self.units, branches.slopes)
        return linear_bound(self.problem.network, Functions(slopes, offset), intervals, lines)

    def _region(self, count: int) -> Region:
        """The one input's, for each of so many branches."""
        places = torch.zeros(count, dtype=torch.long, device=self.problem.x.device)
        return Region(self.problem.threat.of_rows(places), self.problem.x[places])


class _Slopes:
    """The slopes below units that bend at 0, from what a branch says of each."""

    def __init__(self, problem: Problem, units: Units, slopes: Tensor) -> None:
        self.network, self.slopes = problem.network, slopes
        self.blocks = {block.ref: block for block in units.blocks if not block.corners.any()}

    def __call__(self, index: int, slope: Tensor, free: Tensor, least: Tensor) -> Tensor:
        (ref,) = self.network.place(index).inputs
        if ref not in self.blocks:
            return slope
        block = self.blocks[ref]
        share = slope.flatten(1).index_copy(1, block.features, block.of(self.slopes)).view_as(slope)
        return torch.where(free, least + (1 - least) * share, slope)
