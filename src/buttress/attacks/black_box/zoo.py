"""ZOO: the attack of Carlini and Wagner with slopes by finite differences, one coordinate at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat
from buttress.validation import not_negative, positive, whole

_MEAN, _SQUARE = 0.9, 0.999  # Adam's decays


@attack("zoo")
@dataclass(frozen=True, kw_only=True)
class ZOO(MinimumNorm):
    """Zeroth-order optimisation by coordinates, with Adam (Chen et al., AISec 2017, algorithm 2), in l2.

    Minimises the squared distance, in widths of the box (see `Threat.unit`), plus c times max(-margin,
    -``confidence``), where the margin is positive when the model is fooled. Each step asks about two
    points and moves one coordinate of each input. c is searched for as by Carlini and Wagner: down by bisection after a
    success, up tenfold before the first. Our choices: coordinates come in sweeps over all that may change, each in an
    order of its own; the slope of the distance, which is known, is not estimated; at the
    edge of the box the difference is one-sided; no variable is changed for tanh, and no importance sampling or
    smaller attack space is used.

    Cost per input: ``queries`` forwards (one less where odd), and one for the unperturbed input; that one only where
    it fools the model.

    Args:
        threat: of norm l2.
        queries: questions to the model for each input, over all values of c together.
        search_steps: values of c tried, each with its share of the queries.
        c: the first of them.
        confidence: the margin aimed at, in logits; kappa in the paper.
        lr: Adam's learning rate, in widths of the box; see `Threat.widths`.
        h: half the distance between the two points asked about, likewise.
    """

    threat: Threat = NOT_GIVEN
    queries: int = 10_000
    search_steps: int = 3
    c: float = 1.0
    confidence: float = 0.0
    lr: float = 0.01
    h: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("queries", self.queries)
        whole("search_steps", self.search_steps)
        positive("c", self.c)
        positive("lr", self.lr)
        positive("h", self.h)
        not_negative("confidence", self.confidence)
        check_threat("ZOO", self.threat, "l2")

    def search_passes(self, classes: int) -> PassCount:
        """The queries, in pairs."""
        return PassCount(self.queries // 2 * 2)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The nearest adversarial point found."""
        smallest = Smallest(oracle, self.threat)
        oracle.rest(smallest.settled)
        c = torch.full((len(x),), self.c, dtype=x.dtype, device=x.device)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        steps = self.queries // 2
        for k in range(self.search_steps):
            count = steps * (k + 1) // self.search_steps - steps * k // self.search_steps
            won = self._descend(oracle, x, c, count, smallest, random.fork("search", k))
            low, high = torch.where(won, low, c), torch.where(won, c, high)
            c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
        oracle.wake()
        return smallest.point

    def _descend(self, oracle: Oracle, x: Tensor, c: Tensor, count: int, smallest: Smallest, random: Random) -> Tensor:
        """``count`` steps from ``x`` with these ``c``, (N,); (N,) bool, where a point fooled the model."""
        start = x.flatten(1)
        at, mean, square, times = start.clone(), *(torch.zeros_like(start) for _ in range(3))
        won, free = torch.zeros_like(oracle.success), self.threat.free_features(x)
        low, high, widths = (part.expand_as(x).flatten(1) for part in (*self.threat.limits(x), self.threat.widths(x)))
        for step in range(count):
            if oracle.done:
                break
            if step % len(free) == 0:
                order = free[random.uniform((len(free),)).argsort(dim=1, stable=True)]
            index = order[:, step % len(free), None]
            width = widths.gather(1, index)
            slope, success = self.slope(oracle, at.view_as(x), index.squeeze(1), smallest)
            won |= success
            # The slope of the objective in widths of the box, so that Adam's steps are the same in any.
            grad = (2 / self.threat.unit**2 * (at - start).gather(1, index) - (c * slope)[:, None]) * width
            mean.scatter_(1, index, mean.gather(1, index).lerp(grad, 1 - _MEAN))
            square.scatter_(1, index, square.gather(1, index).lerp(grad.square(), 1 - _SQUARE))
            age = times.scatter_add_(1, index, torch.ones_like(grad)).gather(1, index)
            move = mean.gather(1, index) / (1 - _MEAN**age)
            move = move / ((square.gather(1, index) / (1 - _SQUARE**age)).sqrt() + 1e-8)
            moved = at.gather(1, index) - self.lr * width * move
            at.scatter_(1, index, moved.clamp(low.gather(1, index), high.gather(1, index)))
        return won

    def slope(
        self, oracle: Oracle, x: Tensor, index: Tensor, smallest: Smallest | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N,) slope of min(margin, confidence) along one coordinate; (N,) bool, whether either point fooled the model.

        Args:
            oracle: to be asked twice.
            x: (N, D) or (N, ...) where.
            index: (N,) coordinates, in the flattened input.
            smallest: is offered both points.
        """
        values, ends, won = [], [], torch.zeros_like(oracle.success)
        there, width = index[:, None], self.threat.widths(oracle.x).expand_as(oracle.x).flatten(1)
        low, high = (end.expand_as(oracle.x).flatten(1).gather(1, there) for end in self.threat.limits(oracle.x))
        for h in (self.h, -self.h):
            rows = x.flatten(1).clone()
            end = (rows.gather(1, there) + h * width.gather(1, there)).clamp(low, high)
            points = rows.scatter_(1, there, end).view_as(x)
            values.append(oracle.loss(points, "margin").clamp(max=self.confidence))
            ends.append(end.squeeze(1))
            won |= oracle.success
            if smallest is not None:
                smallest.offer(points)
        apart = ends[0] - ends[1]
        return torch.where(apart > 0, (values[0] - values[1]) / apart.clamp(min=1e-30), 0), won
