"""HopSkipJump: gradients of the decision boundary, estimated from decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.black_box.decision_based import Line, starting_points
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Norm, Threat, check_threat, norms, per_row
from buttress.validation import whole

_SEEK, _HALVE, _PROBE, _JUMP = range(4)
_MOST_PROBES = 10_000  # for one direction, as in the authors' code
_JUMPS = 20  # of ever half the length; one that fails so often is none, and the direction is estimated anew


@attack("hopskipjump")
@dataclass(frozen=True, kw_only=True)
class HopSkipJump(MinimumNorm):
    """Bisection to the boundary, an estimate of its normal there, and a jump along that (Chen et al., IEEE S&P 2020).

    In l2 and linf. At turn t the normal is the mean of ``probes`` sqrt(t) random directions, each weighed by whether a
    small step along it fools the model, less their mean weight; the jump begins with the distance over sqrt(t) and is
    halved until it fools the model. Every row goes its own pace. Our choices: starting points are noise or a flat
    colour, drawn until one fools the model, so that a target no such point is taken for is out of reach; at least 8
    halvings a bisection; a jump is halved 20 times at most; in linf the directions are scaled to length 1 on average
    rather than one by one.

    Cost per input: ``queries`` forwards, and one for the unperturbed input; that one only where it fools the model.

    Args:
        threat: of norm l2 or linf.
        queries: questions to the model for each input, those for a starting point included.
        probes: directions asked about in the first turn.
    """

    threat: Threat = NOT_GIVEN
    queries: int = 5000
    probes: int = 100

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("queries", self.queries)
        whole("probes", self.probes)
        check_threat("HopSkipJump", self.threat, "l2", "linf")

    def search_passes(self, classes: int) -> PassCount:
        """The queries."""
        return PassCount(self.queries)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The nearest adversarial point found."""
        smallest = Smallest(oracle, self.threat)
        oracle.rest(smallest.settled)
        hops = _Hops(x, self.threat, self.probes, random, smallest.settled)
        for _ in range(self.queries):
            if oracle.done:
                break
            points = hops.propose()
            oracle.logits(points)
            smallest.offer(points)
            hops.learn(points, oracle.success)
        oracle.wake()
        return smallest.point


def halvings(features: int, norm: Norm) -> int:
    """How often a bisection halves: down to the paper's theta, features^-3/2 in l2 and features^-2 in linf."""
    return max(8, math.ceil((2 if norm == "linf" else 1.5) * math.log2(max(features, 1))))


def normal_direction(weighed: Tensor, plain: Tensor, mean: Tensor) -> Tensor:
    """The estimate of the boundary's normal, (N, ...): the sum of (weight - mean weight) times direction.

    Args:
        weighed: (N, ...) the sum of the directions u, each times its weight: 1 where it fooled the model, else -1.
        plain: (N, ...) the sum of the directions.
        mean: (N,) the mean weight. Where all weights are equal, it times ``plain`` is the estimate.
    """
    centred = weighed - per_row(mean, plain) * plain
    return torch.where(per_row(mean.abs() == 1, plain), weighed, centred)


class _Hops:
    """Where each row is: what it asks next depends on its own answers only, so rows may be at different things."""

    def __init__(self, x: Tensor, threat: Threat, probes: int, random: Random, settled: Tensor) -> None:
        self.x, self.threat, self.first_probes, self.random, self.query = x, threat, probes, random, 0
        self.features = len(threat.free_features(x))
        self.halvings = halvings(self.features, threat.norm)
        self.line = Line(x, threat)
        self.doing = torch.where(settled, _HALVE, _SEEK)  # those settled look for nothing, and nobody asks for them
        self.seeking = True  # whether a row may still need a starting point
        self.left = torch.zeros_like(self.doing)  # questions to go in what the row is doing
        self.turn = torch.zeros_like(self.doing)
        self.probes = torch.ones_like(self.doing)  # of this turn
        self.weighed, self.plain = torch.zeros_like(x), torch.zeros_like(x)
        self.mean = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        self.jump = torch.zeros_like(x)

    @property
    def at(self) -> Tensor:
        """(N, ...) the last point found on the boundary, on the far side of it."""
        return self.line.point

    def propose(self) -> Tensor:
        """(N, ...) the points to ask about."""
        doing = per_row(self.doing, self.x)
        points = torch.where(doing == _PROBE, self.at + per_row(self._radius(), self.x) * self._directions(), self.at)
        points = torch.where(doing == _HALVE, self.line.middle(), points)
        points = torch.where(doing == _JUMP, self.at + self.jump, points)
        if self.seeking:
            drawn = starting_points(self.x, self.threat, self.random.fork("start", self.query), self.query)
            points = torch.where(doing == _SEEK, drawn, points)
            self.seeking = bool((self.doing == _SEEK).any())
        self.query += 1
        return self.threat.clip(points, self.x)

    def learn(self, points: Tensor, success: Tensor) -> None:
        """Each row's next state, given the answers to `propose`."""
        seek, halve, probe, jump = (self.doing == doing for doing in (_SEEK, _HALVE, _PROBE, _JUMP))
        self._add(probe, points, success)  # before the point on the boundary moves
        self.line.learn(halve, points, success)
        self.line.aim((seek | jump) & success, points)
        self.jump = torch.where(per_row(jump, points), self.jump / 2, self.jump)
        self.left = self.left - 1
        over = self.left == 0
        self._begin_probes((halve & over) | (jump & over & ~success))
        self._begin_jump(probe & over)
        adversarial = (seek | jump) & success
        self.doing = torch.where(adversarial, _HALVE, self.doing)
        self.left = torch.where(adversarial, self.halvings, self.left)

    def _begin_probes(self, rows: Tensor) -> None:
        self.turn = self.turn + rows.long()
        wanted = (self.first_probes * self.turn.double().sqrt()).long().clamp(1, _MOST_PROBES)
        self.probes = torch.where(rows, wanted, self.probes)
        self.left, self.doing = torch.where(rows, wanted, self.left), torch.where(rows, _PROBE, self.doing)
        self.mean = torch.where(rows, 0, self.mean)
        new = per_row(rows, self.x)
        self.weighed, self.plain = torch.where(new, 0, self.weighed), torch.where(new, 0, self.plain)

    def _begin_jump(self, rows: Tensor) -> None:
        direction = normal_direction(self.weighed, self.plain, self.mean / self.probes)
        length = (self._distance() / self.turn.clamp(min=1).sqrt()).to(self.x.dtype)
        if self.threat.norm == "linf":
            direction = self.threat.shared(direction.sign())
        else:
            direction = direction / per_row(norms(direction, "l2").clamp(min=1e-30), direction)
        self.jump = torch.where(per_row(rows, self.x), per_row(length, self.x) * direction, self.jump)
        self.left, self.doing = torch.where(rows, _JUMPS, self.left), torch.where(rows, _JUMP, self.doing)

    def _add(self, rows: Tensor, points: Tensor, success: Tensor) -> None:
        """Count a probe: what it says, and the direction that it really took, for the box may have cut it."""
        weight = torch.where(rows, 2 * success.to(self.x.dtype) - 1, 0)
        taken = (points - self.at) / per_row(self._radius().clamp(min=1e-30), points)
        taken = torch.where(per_row(rows, points), taken, 0)
        self.weighed = self.weighed + per_row(weight, taken) * taken
        self.plain, self.mean = self.plain + taken, self.mean + weight

    def _distance(self) -> Tensor:
        return self.threat.size(self.at - self.x)

    def _radius(self) -> Tensor:
        """(N,) how far the probes go: a tenth of the box in the first turn, then the distance over the features."""
        distance = self._distance()
        width = distance if math.isinf(self.threat.widest) else self.threat.unit
        return torch.where(self.turn <= 1, 0.1 * width, distance / self.features)

    def _directions(self) -> Tensor:
        """Random directions of L2 length 1: normal ones in l2, uniform ones in linf."""
        if self.threat.norm == "linf":  # no sum over a row: its rounding could differ from batch to batch
            drawn = (2 * self.random.uniform(self.x.shape[1:], self.x.dtype) - 1) * math.sqrt(3 / self.features)
            return self.threat.shared(drawn)
        drawn = self.threat.free(self.random.normal(self.x.shape[1:], self.x.dtype))
        return drawn / per_row(norms(drawn, "l2").clamp(min=1e-30), drawn)
