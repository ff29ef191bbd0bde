"""The inputs that a threat allows, and the least value of a linear function among them."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.threat import Threat

_HALVINGS = 30
_LEAST = 1e-20  # a multiplier that can be divided by


class Region:
    """All inputs that a threat allows around ``x`` (N, ...).

    Attributes:
        x: the centres.
        low: (N, ...) the lowest value of each feature.
        high: the highest.
    """

    def __init__(self, threat: Threat, x: Tensor) -> None:
        self.threat, self.x = threat, x
        self.low, self.high = threat.cube(x)
        self.budgets = threat.budgets(x)

    def least(self, slope: Tensor) -> Tensor:
        """(S, N) the least value in the region of linear functions with slopes (S, N, 1, ...)."""
        slope = slope.flatten(2)
        return (slope * self.x.flatten(1)).sum(2) + self._fall(slope)

    def minimiser(self, slope: Tensor) -> Tensor:
        """(S, N, ...) points of the region where linear functions are least; nearly so in l2."""
        points = self.x + self._steps(slope.flatten(2)).view(len(slope), *self.x.shape)
        return torch.stack([self.threat.project(point, self.x) for point in points])

    def _ends(self) -> tuple[Tensor, Tensor]:
        """(N, D) how far each feature may go down and up."""
        x = self.x.flatten(1)
        return self.low.flatten(1) - x, self.high.flatten(1) - x

    def _fall(self, slope: Tensor) -> Tensor:
        """(S, N) the least value of ``slope`` (S, N, D) times a perturbation."""
        down, up = self._ends()
        if self.threat.norm == "linf":
            return (slope.clamp(min=0) * down + slope.clamp(max=0) * up).sum(2)
        if self.threat.norm == "l1":
            return (slope * self._steps(slope)).sum(2)
        # Lagrange's bound holds for every multiplier; the best is that of the step which is as long as the budget.
        weight = self._multiplier(slope)[:, :, None]
        step = self._at(slope, weight)
        ball = (slope * step + weight / 2 * step.square()).sum(2) - weight[:, :, 0] / 2 * self.budgets.square()
        return torch.maximum(ball, (slope.clamp(min=0) * down + slope.clamp(max=0) * up).sum(2))

    def _steps(self, slope: Tensor) -> Tensor:
        """(S, N, D) perturbations where linear functions are least."""
        down, up = self._ends()
        if self.threat.norm == "linf":
            return torch.where(slope > 0, down, torch.where(slope < 0, up, 0.0))
        if self.threat.norm == "l2":
            return self._at(slope, self._multiplier(slope)[:, :, None])
        # l1: spend the budget on the features with the steepest slopes, each as far as the box lets it go.
        room = torch.where(slope > 0, -down, up)
        order = slope.abs().argsort(2, descending=True)
        spent = room.gather(2, order).cumsum(2)
        before = spent - room.gather(2, order)
        length = torch.minimum(room.gather(2, order), (self.budgets[:, None] - before).clamp(min=0))
        steps = torch.zeros_like(slope).scatter(2, order, length)
        return -slope.sign() * steps

    def _at(self, slope: Tensor, weight: Tensor) -> Tensor:
        """What is least of slope * step + weight / 2 step^2 within the box."""
        down, up = self._ends()
        return torch.minimum(torch.maximum(-slope / weight, down), up)

    def _multiplier(self, slope: Tensor) -> Tensor:
        """(S, N) by bisection: where the step of `_at` has the length of the budget."""
        norm = slope.detach().square().sum(2).sqrt()
        high = (norm / self.budgets.clamp(min=1e-12)).clamp(
            min=_LEAST
        )  # without a box the step is as long as the budget
        low = high * 1e-6
        for _ in range(_HALVINGS):
            middle = low.sqrt() * high.sqrt()
            long = self._at(slope.detach(), middle[:, :, None]).square().sum(2) > self.budgets.square()
            low, high = torch.where(long, middle, low), torch.where(long, high, middle)
        return high
