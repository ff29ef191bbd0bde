"""L1 geometry: the exact projection onto the part of an L1 ball that lies in the box, and sparse steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from buttress.float64 import above_zero
from buttress.threat import Threat


def project_l1(x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """The nearest point (in L2) that is in the L1 ball around ``x`` and in the box: Croce and Hein (ICML 2021).

    A perturbation d becomes sign(d) clamp(|d| - s, 0, room to the box) with the least s >= 0 that fits the ball. What
    the box cuts off is thereby given to other coordinates, where clipping after the projection would lose it. ``s`` is
    exact: the sum is piecewise linear in s, and its 2 D bends are sorted.

    Args:
        x_adv: (N, ...) points; NaN counts as no perturbation.
        x: (N, ...) centres, in the box.
        threat: an l1 threat.

    Returns:
        (N, ...) points of ``x``'s dtype, inside the threat with tolerance 0.
    """
    delta = torch.nan_to_num((x_adv.double() - x.double()).flatten(1))
    size, centre = delta.abs(), x.double().flatten(1)
    low, high = (end.expand_as(x).double().flatten(1) for end in threat.limits(x))
    room = torch.where(delta > 0, high - centre, centre - low).clamp(min=0)
    if math.isfinite(threat.eps):
        size = (size - _shrinkage(size, room, threat.eps * (1 - 1e-12))).clamp(min=0)
        size = size.minimum(room)
        # The little that rounding leaves above eps, which is much for a ball far smaller than the perturbation.
        size = size * (threat.eps * (1 - 1e-12) / above_zero(size.sum(1, keepdim=True))).clamp(max=1)
    else:
        size = size.minimum(room)
    moved_by = (size * delta.sign()).view_as(x)
    moved = (x.double() + moved_by).to(x.dtype)
    overshoot = (moved.double() - x.double()).abs() > moved_by.abs()
    return threat.clip(torch.where(overshoot, torch.nextafter(moved, x), moved), x)


def _shrinkage(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """(N, 1) the s at which the sum of clamp(size - s, 0, room) is ``eps``; 0 where it is less already."""
    bends = torch.cat(
        [size, (size - room).clamp(min=0)], 1
    )  # below the first a coordinate counts, below the second no more
    bends, order = bends.sort(dim=1, descending=True)
    slope = torch.where(order < size.shape[1], 1.0, -1.0).to(size.dtype)
    slopes, heights = slope.cumsum(1), (slope * bends).cumsum(1)
    below = ((heights - bends * slopes < eps).sum(1, keepdim=True) - 1).clamp(min=0)
    threshold = (heights.gather(1, below) - eps) / slopes.gather(1, below).clamp(min=1)
    return torch.where(size.minimum(room).sum(1, keepdim=True) > eps, threshold.clamp(min=0), 0)


def sparse_step(grad: Tensor, count: Tensor) -> Tensor:
    """(N, ...) the signs of each row's largest gradient entries, of L1 length 1; 0 where the gradient is 0.

    Args:
        grad: (N, ...) gradients.
        count: (N,) how many entries move, rounded up as in the authors' code, 1 at least; those as large as the last
            of them move, too.
    """
    rows = grad.flatten(1)
    size = rows.abs()
    index = (count.ceil().long() - 1).clamp(0, max(rows.shape[1] - 1, 0))
    least = size.sort(dim=1, descending=True).values.gather(1, index[:, None])
    chosen = rows.sign() * (size >= least)
    return (chosen / chosen.abs().sum(1, keepdim=True).clamp(min=1)).view_as(grad)
