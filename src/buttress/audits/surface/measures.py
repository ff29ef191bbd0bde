"""Figures of a loss around inputs: how far from its tangent, how bent, how rough, and which way is up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from buttress.audits.base.loss_around import LossAround
from buttress.audits.surface.directions import moved, random_steps, steepest
from buttress.random import Random, derive
from buttress.threat import Threat

ON_THE_WAY = 16  # equal parts of the way along the gradient to the budget
_ROUNDING = 1e-5  # of a loss of float32 outputs, beyond which one counts as higher


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Some inputs under one loss.

    Attributes:
        loss: of the network.
        threat: the budget.
        x: (N, ...) the inputs, their truth ``y`` and what identifies them, ``ids`` (N,).
        seed: of random directions.
    """

    loss: LossAround
    threat: Threat
    x: Tensor
    y: Tensor
    ids: Tensor
    seed: int

    @cached_property
    def start(self) -> Tensor:
        """(N,) float64 the loss at the inputs."""
        return self.loss.value(self.x, self.y)

    @cached_property
    def gradient(self) -> Tensor:
        """(N, ...) float64 its gradient there."""
        return self.loss.gradient(self.x, self.y)

    @cached_property
    def step(self) -> Tensor:
        """(N, ...) float64 the step of size eps along the gradient; see `steepest`."""
        return steepest(self.threat, self.x, self.gradient)

    @cached_property
    def rise(self) -> Tensor:
        """(N,) the rise that the gradient predicts for its step, as far as the range of inputs lets it go."""
        return tangent(self.gradient, moved(self.threat, self.x, self.step), self.x)

    def departure(self, points: Tensor) -> Tensor:
        """(N,) the loss at ``points`` less its tangent there."""
        return self.loss.value(points, self.y) - self.start - tangent(self.gradient, points, self.x)

    def linearity_error(self, steps: int, *others: Tensor) -> Tensor:
        """(N,) the largest departure from the tangent within the budget, in either direction, that a search finds.

        Args:
            steps: of projected ascent, as long as an attack's: 2.5 eps in all.
            others: (N, ...) further points within the budget that are tried, such as an attack's examples.
        """
        threat, x = self.threat, self.x
        points = threat.random_start(x, Random(derive(self.seed, "surface", "linearity"), self.ids))
        found = torch.stack([self.departure(other).abs() for other in (*others, moved(threat, x, self.step))]).amax(0)
        for _ in range(steps):
            departure = self.departure(points)
            found = torch.maximum(found, departure.abs())
            bent = self.loss.gradient(points, self.y) - self.gradient
            uphill = (bent * torch.where(departure < 0, -1.0, 1.0).view(-1, *[1] * (x.dim() - 1))).to(x.dtype)
            points = threat.project(threat.ascend(points, uphill, 2.5 * threat.eps / steps), x)
        return torch.maximum(found, self.departure(points).abs())

    def curvature(self) -> Tensor:
        """(N,) the second difference along the gradient's step; where that is cut off by the range, of what is left."""
        return sum((self.departure(moved(self.threat, self.x, sign * self.step)) for sign in (1, -1)), self.start * 0)

    def roughness(self) -> Tensor:
        """(N,) of the ups and downs on the way along the gradient's step, the share that cancels out; 0 without any."""
        parts = [moved(self.threat, self.x, self.step * (k / ON_THE_WAY)) for k in range(1, ON_THE_WAY + 1)]
        values = torch.stack([self.start, *(self.loss.value(part, self.y) for part in parts)])
        changes = values.diff(dim=0)
        changes = changes.where(changes.abs() > self._rounding, 0.0)
        travelled = changes.abs().sum(0)
        return torch.where(travelled > 0, 1 - changes.sum(0).abs() / travelled.where(travelled > 0, 1.0), 0.0)

    def steeper_at_random(self, share: float, draws: int) -> Tensor:
        """(N,) bool: whether some random step raises the loss by more than the gradient's does.

        Args:
            share: of the budget, how long the steps are.
            draws: random steps; their opposites are tried, too.
        """
        random = Random(derive(self.seed, "surface", "steeper"), self.ids)
        best = torch.full_like(self.start, -torch.inf)
        for step in random_steps(self.threat, self.x, random, draws):
            best = torch.maximum(best, self._after(step, share))
        return best > self._after(self.step, share) + self._rounding

    def _after(self, step: Tensor, share: float) -> Tensor:
        return self.loss.value(moved(self.threat, self.x, share * step), self.y)

    @property
    def _rounding(self) -> Tensor:
        return _ROUNDING * self.start.abs().clamp(min=1)


def tangent(grad: Tensor, points: Tensor, x: Tensor) -> Tensor:
    """(N,) float64 what the gradient (N, ...) at ``x`` predicts of the change from there to ``points``."""
    return (grad * (points.double() - x.double())).flatten(1).sum(1)
