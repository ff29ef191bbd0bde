"""FAB: the nearest boundary, by steps onto linearised boundaries that are drawn back towards the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.fab_planes import plane_distance, to_plane
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.losses import ranked
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, per_row
from buttress.validation import positive, share, whole

_LOOK = 10  # steps after which the work is narrowed to the inputs that are left


@attack("fab")
@dataclass(frozen=True, kw_only=True)
class FAB(MinimumNorm):
    """The fast adaptive boundary attack (Croce and Hein, ICML 2020), in linf, l2 and l1.

    Each step goes to the nearest of the linearised boundaries, found exactly within the box, partly from the iterate
    and partly from the input; an iterate that fools the model is drawn back to the input first. The boundary is
    linearised where the model was asked last, before drawing back, so that a step takes one forward and not two.

    Cost per input, restart and target: ``steps`` + 1 forwards and ``steps`` backwards; without targets the backwards
    are as many times the number of classes less one. An input misclassified unperturbed costs one forward.

    Args:
        threat: the norm and the box; with a finite eps, what counts as successful, and how far restarts start.
        steps: of each restart.
        restarts: independent runs; the first starts at the input, the others within half of the smallest size so far.
        targets: how many classes to look for a boundary with, one after the other in the order of the clean logits,
            the runner-up first; all others at most. 0 looks at all of them in each step. An attack that was given a
            target looks at that alone.
        alpha_max: the largest share of a step that is taken from the input.
        eta: how far a step overshoots; 1 ends on the plane.
        beta: how much of its perturbation is left to an iterate that fooled the model.
    """

    needs_classes = True

    threat: Threat = NOT_GIVEN
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        whole("restarts", self.restarts)
        whole("targets", self.targets, 0)
        share("alpha_max", self.alpha_max)
        share("beta", self.beta)
        positive("eta", self.eta)
        check_threat("FAB", self.threat)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The smallest perturbation found."""
        smallest = Smallest(oracle, self.threat)
        oracle.rest(smallest.settled)
        for number, (restart, classes) in enumerate(self._rounds(oracle)):
            if oracle.done:
                break
            start = x if restart == 0 else self._start(x, smallest, random.fork("round", number))
            self._run(oracle, smallest, start, classes)
        oracle.wake()
        return smallest.point

    def _rounds(self, oracle: Oracle) -> Iterator[tuple[int, Tensor]]:
        """Number of the restart and (N, K) classes whose boundaries are looked at, for each run."""
        if oracle.target is not None:
            columns = [oracle.target[:, None]]
        else:
            classes = ranked(oracle.clean, oracle.y, self.targets or oracle.clean.shape[1] - 1)
            columns = list(torch.split(classes, 1, dim=1)) if self.targets else [classes]
        for column in columns:
            for restart in range(self.restarts):
                yield restart, column

    def _start(self, x: Tensor, smallest: Smallest, random: Random) -> Tensor:
        """A random point in the box, at half of the smallest size so far, or of eps; without both, half-way to one."""
        norm = self.threat.norm
        if norm == "linf":
            way = 2 * random.uniform(x.shape[1:], torch.float64) - 1
        else:
            way = random.normal(x.shape[1:], torch.float64)
        way = self.threat.shared(way)
        reach = smallest.distance.clamp(max=self.threat.eps)
        reach = reach.where(reach.isfinite(), self.threat.across(x))
        way = way * per_row(reach / 2 / self.threat.size(way).clamp(min=1e-300), x)
        return self.threat.clip((x.double() + way).to(x.dtype), x)

    def _run(self, oracle: Oracle, smallest: Smallest, start: Tensor, classes: Tensor) -> None:
        """One run; what it finds is recorded."""
        query, rows = start, torch.arange(len(start), device=start.device)
        for step in range(self.steps):
            if oracle.done:
                return
            if step % _LOOK == 0:
                rows = (oracle.alive & ~oracle.resting).nonzero().squeeze(1)
            output, grads = oracle.differences(query, classes)
            smallest.offer(query)
            drawn = torch.where(per_row(oracle.success, query), oracle.x + self.beta * (query - oracle.x), query)
            output = output.double()
            value = output.gather(1, classes) - output.gather(1, oracle.y[:, None])
            moved = self._step(oracle.x[rows], query[rows], drawn[rows], value[rows], grads[rows])
            query = query.index_copy(0, rows, moved)
        if not oracle.done:
            oracle.logits(query)
            smallest.offer(query)

    def _step(self, x: Tensor, query: Tensor, drawn: Tensor, value: Tensor, grads: Tensor) -> Tensor:
        """(M, ...) the next iterates: from ``drawn``, along the planes met at ``query``."""
        norm, shares = self.threat.norm, self.threat.shares
        box = [end.expand_as(x).flatten(1).double() for end in self.threat.limits(x)]
        pace = None if shares is None else shares.to(x.double()).expand(x.shape[1:]).flatten()
        slopes = self.threat.free(grads).flatten(2).double()
        centre, at, from_ = (points.flatten(1).double() for points in (x, query, drawn))
        there = value + (slopes * (from_ - at)[:, None]).sum(2)  # what the planes say of the iterate drawn back
        nearest = plane_distance(there, slopes if pace is None else slopes * pace, norm).argmin(1)
        each = torch.arange(len(x), device=x.device)
        slope, value = slopes[each, nearest], value[each, nearest]
        ways = []
        for point in (from_, centre):
            ways.append(to_plane(point, value + (slope * (point - at)).sum(1), slope, norm, (box[0], box[1]), pace))
        one, two = (self.threat.size(way.view(x.shape)).clamp(min=1e-8 * self.threat.unit) for way in ways)
        share = (one / (one + two)).clamp(max=self.alpha_max)[:, None]
        moved = (1 - share) * (from_ + self.eta * ways[0]) + share * (centre + self.eta * ways[1])
        return self.threat.clip(moved.view_as(x).to(x.dtype), x)
