"""Functions of any shape, between two edges of the convex hull of their points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.elementwise import Elementwise, Lines
from buttress.certificates.operations.operation import Interval, Place
from buttress.errors import UserError

_GRID = 33  # equal parts of an interval: an odd number, so that one edge is at its middle, not the ends of two
Bends = Callable[[Place], Sequence[float | Tensor]]
Curvature = Callable[[Place, Tensor, Tensor], float | Tensor]


class Hull(Elementwise):
    """A function between two lines that follow from its values at some points of the interval.

    Of all lines above these values, that is taken which is lowest at the middle of the interval, so that the area
    between it and the function is least: an edge of the hull. Between points of a grid a function whose second
    derivative is at most M in size is at most M h^2 / 8 away from its chords, by which the lines are moved; a function
    of linear pieces is met at its ends and bends exactly.

    Args:
        curvature: M, for inputs between two ends; None for functions of linear pieces.
        bends: where the function, or its slope, changes suddenly.
        rising: whether the function rises everywhere.
        positive: whether it is defined for positive inputs alone.
    """

    def __init__(
        self,
        curvature: float | Curvature | None = None,
        bends: Sequence[float] | Bends = (),
        *,
        rising: bool = False,
        positive: bool = False,
    ) -> None:
        self.curvature, self.bends, self.rising, self.positive = curvature, bends, rising, positive

    def interval(self, place: Place, inputs: dict[Ref, Interval]) -> Interval:
        """The lowest and the highest of the values at the points; of a function that rises those at the ends."""
        ((ref, (low, high)),) = inputs.items()
        self._check(place, low)
        if self.rising:
            return place.run({ref: low}), place.run({ref: high})
        points = self._points(place, low, high)
        values, slack = self._values(place, ref, points), self._slack(place, low, high)
        return values.amin(0) - slack, values.amax(0) + slack

    def lines(self, place: Place, low: Tensor, high: Tensor) -> Lines:
        """The edges of the hull below and above the middle of the interval."""
        (ref,) = place.inputs
        self._check(place, low)
        points = self._points(place, low, high)
        values, slack = self._values(place, ref, points), self._slack(place, low, high)
        above, over = _edge(points, values)
        below, under = _edge(points, -values)
        return Lines(-below, -under - slack, above, over + slack)

    def corners(self, place: Place) -> Sequence[float] | None:
        """The bends of a function of linear pieces; None where features bend at places of their own."""
        bends = self._bends(place)
        if self.curvature is not None or any(isinstance(bend, Tensor) and bend.numel() > 1 for bend in bends):
            return None
        return [float(bend) for bend in bends if math.isfinite(bend)]

    def _bends(self, place: Place) -> Sequence[float | Tensor]:
        return self.bends(place) if callable(self.bends) else self.bends

    def _points(self, place: Place, low: Tensor, high: Tensor) -> Tensor:
        """(P, N, ...) in ascending order."""
        inside = [torch.as_tensor(bend, dtype=low.dtype, device=low.device) for bend in self._bends(place)]
        inside = [bend.expand_as(low).clamp(low, high) for bend in inside]
        if self.curvature is None:
            return torch.stack([low, *inside, high]).sort(0).values
        steps = torch.linspace(0, 1, _GRID + 1, dtype=low.dtype, device=low.device)
        grid = torch.lerp(low, high, steps.view(-1, *[1] * low.dim()))
        return torch.cat([grid, torch.stack(inside)]).sort(0).values if inside else grid

    def _values(self, place: Place, ref: Ref, points: Tensor) -> Tensor:
        return torch.stack([place.run({ref: point}) for point in points])

    def _slack(self, place: Place, low: Tensor, high: Tensor) -> Tensor:
        if self.curvature is None:
            return torch.zeros_like(low)
        most = self.curvature(place, low, high) if callable(self.curvature) else self.curvature
        return most * ((high - low) / _GRID).square() / 8

    def _check(self, place: Place, low: Tensor) -> None:
        if self.positive and not bool((low > 0).all()):
            raise UserError(
                f"cannot bound {place.node}: its input may be as low as {float(low.min()):.3g} within the budget, "
                "where it is not defined, or has no bound"
            )


def _edge(points: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of a line above all points (P, N, ...).

    Its slope is that of the highest chord over the middle of the interval, so that it is lowest there, or nearly so
    where a point is at the middle itself.
    """
    middle = (points[0] + points[-1]) / 2
    best, slope = torch.full_like(middle, -math.inf), torch.zeros_like(middle)
    tiny = torch.finfo(points.dtype).tiny
    for left, value in zip(points, values, strict=True):
        apart = points - left
        slopes = (values - value) / apart.clamp(min=tiny)
        heights = value + slopes * (middle - left)
        heights = torch.where((left < middle) & (points > middle), heights, -math.inf)
        height, which = heights.max(0)
        higher = height > best
        best, slope = torch.where(higher, height, best), torch.where(higher, slopes.gather(0, which[None])[0], slope)
    slope = torch.where(slope.isfinite(), slope, 0.0)
    return slope, (values - slope * points).amax(0)
