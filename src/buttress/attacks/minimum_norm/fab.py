"""FAB: the nearest boundary, by steps onto linearised boundaries that are drawn back towards the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.fab_planes import plane_distance, to_plane
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.ledger import Rows
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.float64 import above_zero
from buttress.losses import ranked
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, per_row
from buttress.validation import positive, share, whole

_FARTHER = 1.5  # how far a step to a target's region goes, at least, once the first has not found it
_LOOK = 10  # steps after which the work is narrowed to the inputs that are left


@attack("fab")
@dataclass(frozen=True, kw_only=True)
class FAB(MinimumNorm):
    """The fast adaptive boundary attack (Croce and Hein, ICML 2020), in linf, l2 and l1.

    Each step goes to the nearest of the linearised boundaries, found exactly within the box, partly from the iterate
    and partly from the input; an iterate that fools the model is drawn back to the input first. The boundary is
    linearised where the model was asked last, before drawing back, so that a step takes one forward and not two.
    Under an attacker's target it is that between the target and its strongest rival at the iterate. Several rivals may
    bound the target's region then; until it is found nothing of a step is taken from the input, which would hold the
    iterates at one plane and short of the next, and from the second on a step is half as long again, so that those to
    and fro between two planes enter a narrow region. From inside, steps end short of the plane by ``eta``.

    Cost per input, restart and target: ``steps`` + 1 forwards and ``steps`` backwards; without targets the backwards
    are as many times the number of classes less one. An input misclassified unperturbed costs one forward.

    Args:
        threat: the norm and the box; with a finite eps, what counts as successful, and how far restarts start.
        steps: of each restart.
        restarts: independent runs; the first starts at the input, the others within half of the smallest size so far.
        targets: how many classes to look for a boundary with, one after the other in the order of the clean logits,
            the runner-up first; all others at most. 0 looks at all of them in each step. An attack that was given a
            target looks at that alone: at the boundary with its strongest rival at each iterate.
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

    def search_passes(self, classes: int) -> PassCount:
        """Those of each run: towards each target by itself, or towards all other classes in each step."""
        runs = self.restarts * (min(self.targets, classes - 1) or 1)
        gradients = 1 if self.targets else classes - 1
        return PassCount(runs * (self.steps + 1), runs * self.steps * gradients)

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

    def _rounds(self, oracle: Oracle) -> Iterator[tuple[int, Tensor | None]]:
        """Of each run: the number of the restart, and (N, K) classes to look at, or None under a target."""
        columns: list[Tensor | None] = [None]
        if oracle.target is None:
            classes = ranked(oracle.clean, oracle.y, self.targets or oracle.clean.shape[1] - 1)
            columns = [*torch.split(classes, 1, dim=1)] if self.targets else [classes]
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
        way = way * per_row(reach / 2 / above_zero(self.threat.size(way)), x)
        return self.threat.clip((x.double() + way).to(x.dtype), x)

    def _run(self, oracle: Oracle, smallest: Smallest, start: Tensor, classes: Tensor | None) -> None:
        """One run; what it finds is recorded."""
        query, rows = start, torch.arange(len(start), device=start.device)
        for step in range(self.steps):
            if oracle.done:
                return
            if step % _LOOK == 0:
                rows = (oracle.alive & ~oracle.resting).nonzero().squeeze(1)
            value, slope = self._plane(oracle, query, classes)
            smallest.offer(query)
            parts = torch.split(rows, oracle.runner.batch_size)  # several copies in float64 are made of each
            moved = torch.cat([self._step(smallest, query, value, slope, part) for part in parts])
            query = query.index_copy(0, rows, moved)
        if not oracle.done:
            oracle.logits(query)
            smallest.offer(query)

    def _plane(self, oracle: Oracle, query: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N,) value and (N, ...) slope of the boundary linearised at ``query``: the nearest one, or a target's."""
        if classes is None:
            return oracle.loss_and_grad(query, "margin")

        def distance(rows: Rows, value: Tensor, slope: Tensor) -> Tensor:
            way = self._drawn(oracle, query, rows) - query[rows].flatten(1).double()
            slope, pace = self.threat.free(slope).flatten(1).double(), self._pace(query)
            return plane_distance(
                value + (slope * way).sum(1), slope if pace is None else slope * pace, self.threat.norm
            )

        return oracle.nearest_face(query, classes, distance)

    def _drawn(self, oracle: Oracle, query: Tensor, rows: Rows) -> Tensor:
        """(M, D) float64 where the next step begins: what fooled the model is drawn back to the input."""
        x, at = oracle.x[rows], query[rows]
        drawn = torch.where(per_row(oracle.success[rows], at), x + self.beta * (at - x), at)
        return drawn.flatten(1).double()

    def _step(self, smallest: Smallest, query: Tensor, value: Tensor, slope: Tensor, rows: Tensor) -> Tensor:
        """(M, ...) the next iterates: from where they are drawn back to, along the planes met at ``query``."""
        oracle, norm, pace = smallest.oracle, self.threat.norm, self._pace(query)
        x = oracle.x[rows]
        low, high = (end.expand_as(x).flatten(1).double() for end in self.threat.limits(x))
        value, slope = value[rows].double(), self.threat.free(slope[rows]).flatten(1).double()
        centre, at, from_ = x.flatten(1).double(), query[rows].flatten(1).double(), self._drawn(oracle, query, rows)
        here, there = (value + (slope * (point - at)).sum(1) for point in (from_, centre))
        ways = [
            to_plane(point, height, slope, norm, (low, high), pace)
            for point, height in ((from_, here), (centre, there))
        ]
        one, two = (self.threat.size(way.view(x.shape)).clamp(min=1e-8 * self.threat.unit) for way in ways)
        share, eta = (one / (one + two)).clamp(max=self.alpha_max)[:, None], self.eta * torch.ones_like(one)[:, None]
        if oracle.target is not None:
            seeking = ~smallest.successful[rows, None]
            if norm == "l1":  # steps along single coordinates go round among the rivals; those in l2 close in
                ways[0] = torch.where(seeking, to_plane(from_, here, slope, "l2", (low, high), pace), ways[0])
            share = torch.where(seeking, 0, share)
            eta = torch.where(seeking & (at != centre).any(1, keepdim=True), eta.clamp(min=_FARTHER), eta)
            eta = torch.where(here[:, None] > 0, 1 / eta, eta)  # from inside, end short of the plane
        moved = (1 - share) * (from_ + eta * ways[0]) + share * (centre + self.eta * ways[1])
        return self.threat.clip(moved.view_as(x).to(x.dtype), x)

    def _pace(self, x: Tensor) -> Tensor | None:
        """(D,) each feature's share of eps; None where all are alike."""
        shares = self.threat.shares
        return None if shares is None else shares.to(x.double()).expand(x.shape[1:]).flatten()
