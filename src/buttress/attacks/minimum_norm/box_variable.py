"""The change of variable that keeps CW's points in the box: a free variable for each coordinate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.threat import Threat

_INSIDE = 1 - 1e-6  # inputs at an edge of the box would lie at infinity in tanh space
_NEAREST = 1e-6  # to the end of a half-open range, likewise, in its unit


class BoxVariable:
    """Points of the box as functions of a variable without limits, coordinate by coordinate.

    A tanh where both ends are finite (Carlini and Wagner, S&P 2017). Ours: a softplus above or below the only finite
    end, which far from it moves as the coordinate does; the coordinate itself, in its unit (see `Threat.widths`), where
    there is no end; and a coordinate that may not change stays where it is, at slope 0.
    """

    def __init__(self, threat: Threat, x: Tensor) -> None:
        """Of the inputs ``x``, (N, ...)."""
        low, high = (end.expand_as(x) for end in threat.limits(x))
        below, above, self.x = low.isfinite(), high.isfinite(), x
        self.fixed = low >= high
        self.closed, self.rising, self.falling = below & above & ~self.fixed, below & ~above, above & ~below
        self.all_closed = bool(self.closed.all())
        self.low, self.high = torch.where(below, low, 0), torch.where(above, high, 0)
        self.half = torch.where(self.closed, (self.high - self.low) / 2, 1)
        self.unit = threat.widths(x)

    def of_inputs(self) -> Tensor:
        """(N, ...) the variable where the points are the inputs."""
        closed = torch.atanh(((self.x - self.low) / self.half - 1).clamp(-1, 1) * _INSIDE)
        if self.all_closed:
            return closed
        up, down = (_softplus_inverse(gap / self.unit) for gap in (self.x - self.low, self.high - self.x))
        free = torch.where(
            self.rising, up, torch.where(self.falling, -down, self.x / self.unit.where(self.unit > 0, 1))
        )
        return torch.where(self.closed, closed, free)

    def points(self, free: Tensor) -> tuple[Tensor, Tensor]:
        """(N, ...) the points that belong to the variable, and their slopes, coordinate by coordinate."""
        inner = torch.tanh(free)
        point, slope = (self.high + self.low) / 2 + self.half * inner, self.half * (1 - inner.square())
        if self.all_closed:
            return point, slope
        way = torch.where(self.falling, -1.0, 1.0).to(free.dtype)  # a falling one goes down from its upper end
        end = torch.where(self.falling, self.high, self.low)
        open_point = end + way * self.unit * F.softplus(way * free)
        open_slope = self.unit * torch.sigmoid(way * free)
        half_open = self.rising | self.falling
        point = torch.where(self.closed, point, torch.where(half_open, open_point, self.unit * free))
        slope = torch.where(self.closed, slope, torch.where(half_open, open_slope, self.unit))
        return torch.where(self.fixed, self.x, point), torch.where(self.fixed, 0, slope)


def _softplus_inverse(value: Tensor) -> Tensor:
    value = value.clamp(min=_NEAREST)
    return value + torch.log(-torch.expm1(-value))
