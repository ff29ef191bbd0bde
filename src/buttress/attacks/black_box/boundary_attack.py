"""The Boundary Attack: a walk along the decision boundary that sees nothing but decisions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.black_box.decision_based import Line, starting_points
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, norms, per_row
from buttress.validation import positive, whole

_SEEK, _HALVE, _AROUND, _CLOSER = range(4)
_HALVINGS = 10
_RATE = 0.1  # of the logarithm of a step size, after each answer
_SMALLEST, _LARGEST = 1e-7, 0.5  # step sizes


@attack("boundary-attack")
@dataclass(frozen=True, kw_only=True)
class BoundaryAttack(MinimumNorm):
    """Small steps around the input, each followed by one closer to it, among adversarial points.

    Brendel et al. (ICLR 2018), in l2: from an adversarial point, a random step of length delta times the
    distance on the sphere around the input; if that still fools the model, a step of epsilon times the distance towards
    the input; both are kept if it still does. Our choices: each answer changes its row's step size by itself, so that
    one in five steps around and one in three steps closer succeed (published: every few queries, by the rate of the
    last ones, up above 1/2 and down below 1/5, and up above 1/4 and down below 1/10); every step around is asked about;
    a bisection of 10 queries comes before the walk; starting points are noise or a flat colour, drawn until one fools
    the model. A target that no such point is taken for is therefore out of reach.

    Cost per input: ``queries`` forwards, and one for the unperturbed input; that one only where it fools the model.

    Args:
        threat: of norm l2.
        queries: questions to the model for each input, those for a starting point included.
        around: first step size on the sphere, as a share of the distance; delta in the paper.
        closer: first step size towards the input, as a share of the distance; epsilon in the paper.
    """

    threat: Threat = NOT_GIVEN
    queries: int = 5000
    around: float = 0.1
    closer: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("queries", self.queries)
        positive("around", self.around)
        positive("closer", self.closer)
        check_threat("the Boundary Attack", self.threat, "l2")

    def search_passes(self, classes: int) -> PassCount:
        """The queries."""
        return PassCount(self.queries)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The nearest adversarial point found."""
        smallest = Smallest(oracle, self.threat)
        oracle.rest(smallest.settled)
        walk = _Walk(x, self, random, smallest.settled)
        for _ in range(self.queries):
            if oracle.done:
                break
            points = walk.propose()
            oracle.logits(points)
            smallest.offer(points)
            walk.learn(points, oracle.success)
        oracle.wake()
        return smallest.point


class _Walk:
    """Where each row is: what it asks next depends on its own answers only, so rows may be at different things."""

    def __init__(self, x: Tensor, settings: BoundaryAttack, random: Random, settled: Tensor) -> None:
        self.x, self.threat, self.random, self.trial = x, settings.threat, random, 0
        self.doing = torch.where(settled, _HALVE, _SEEK)  # those settled look for nothing, and nobody asks for them
        self.seeking = True  # whether a row may still need a starting point
        self.left = torch.zeros_like(self.doing)  # halvings to go
        self.line = Line(x, settings.threat)
        self.at, self.aside = x.clone(), x.clone()  # on the walk; and the step around that may be taken
        self.around = torch.full((len(x),), min(settings.around, _LARGEST), dtype=x.dtype, device=x.device)
        self.closer = torch.full_like(self.around, min(settings.closer, _LARGEST))

    def propose(self) -> Tensor:
        """(N, ...) the points to ask about."""
        doing = per_row(self.doing, self.x)
        points = torch.where(doing == _AROUND, self._step_around(), self.line.middle())
        nearer = self.aside + per_row(self.closer, self.x) * (self.x - self.aside)
        points = torch.where(doing == _CLOSER, nearer, points)
        if self.seeking:
            drawn = starting_points(self.x, self.threat, self.random.fork("start", self.trial), self.trial)
            points = torch.where(doing == _SEEK, drawn, points)
            self.seeking = bool((self.doing == _SEEK).any())
        self.trial += 1
        return self.threat.clip(points, self.x)

    def learn(self, points: Tensor, success: Tensor) -> None:
        """Each row's next state, given the answers to `propose`."""
        seek, halve, around, closer = (self.doing == doing for doing in (_SEEK, _HALVE, _AROUND, _CLOSER))
        self.line.learn(halve, points, success)
        self.line.aim(seek & success, points)
        self.left = torch.where(seek, _HALVINGS, self.left - halve.long())
        arrived = halve & (self.left == 0)
        self.at = torch.where(per_row(arrived, points), self.line.point, self.at)
        self.aside = torch.where(per_row(around & success, points), points, self.aside)
        self.at = torch.where(per_row(closer & success, points), points, self.at)
        # At the rates that are wanted, 1/5 and 1/3, these changes cancel. Where two boundaries meet, fewer than
        # half of the steps around succeed, however small they are: a rate of 1/2 would shrink them to nothing there.
        self.around = _changed(self.around, around, torch.where(success, 4 * _RATE, -_RATE))
        self.closer = _changed(self.closer, closer, torch.where(success, 2 * _RATE, -_RATE))
        self.doing = torch.where(seek & success, _HALVE, self.doing)
        self.doing = torch.where(arrived | closer, _AROUND, self.doing)
        self.doing = torch.where(around & success, _CLOSER, self.doing)

    def _step_around(self) -> Tensor:
        """A random step at right angles to the way to the input, brought back to the sphere of the same distance."""
        inward, step = self.x - self.at, self.threat.free(self.random.normal(self.x.shape[1:], self.x.dtype))
        distance = norms(inward, "l2").clamp(min=1e-30)
        unit = inward / per_row(distance, inward)
        step = step - per_row((step * unit).flatten(1).sum(1), step) * unit
        step = step * per_row(self.around * distance / norms(step, "l2").clamp(min=1e-30), step)
        return self.x + (step - inward) / per_row((1 + self.around.square()).sqrt(), step)


def _changed(size: Tensor, rows: Tensor, by: Tensor) -> Tensor:
    return torch.where(rows, (size * by.to(size.dtype).exp()).clamp(_SMALLEST, _LARGEST), size)
