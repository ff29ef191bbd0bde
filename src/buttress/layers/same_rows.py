"""Whether the parts of inputs in two passes are the same."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.float64 import above_zero

CLOSE = 1e-3  # of the largest number of one input's part, computed beside others


def gap(rows: Tensor, others: Tensor) -> float:
    """The largest difference of two values, input by input, each of the largest number of its own."""
    difference, size = _difference(rows, others)
    return float((difference / size).max())


def same(rows: Tensor, others: Tensor) -> bool:
    """Whether two values are equal, input by input, as far as inputs differ."""
    if _nearly(rows, others):
        return True
    difference, size = _difference(rows, others)
    wide = rows.detach().double().flatten(1) if rows.dim() > 1 else rows.detach().double()[:, None]
    spread = (wide - wide.mean(0)).abs().nan_to_num(torch.inf).max()
    return bool((difference <= rounding(rows) * size + torch.minimum(CLOSE * size, spread / 10)).all())


def _nearly(rows: Tensor, others: Tensor) -> bool:
    """Whether they are equal up to half of the rounding, which is most often so, and cheap to see."""
    one, other = (value.detach().reshape(len(value), -1) for value in (rows, others))
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    return bool(((one - other).abs().amax(1) <= rounding(rows) / 2 * one.abs().amax(1)).all())


def _difference(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) the largest absolute difference of each part, and (n,) the size that it is to be seen against."""
    one, other = (value.detach().double().reshape(len(value), -1) for value in (rows, others))
    equal = (one == other) | (one.isnan() & other.isnan())
    difference = torch.where(equal, 0.0, one - other).abs().nan_to_num(torch.inf).amax(1)
    size = torch.where(one.isfinite(), one.abs(), 0.0).amax(1)
    return difference, above_zero(torch.maximum(size, size.max() / 100))


def rounding(value: Tensor) -> float:
    """The relative error of a network's values in this data type."""
    return 16 * torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0


def elsewhere(rows: Tensor, among: Tensor) -> bool:
    """Whether each row is found in another place."""
    rows, among = (value.detach().double().reshape(len(value), -1) for value in (rows, among))
    gaps = torch.cdist(rows, among, p=torch.inf)
    return bool((gaps.amin(1) <= CLOSE * rows.abs().max()).all())
