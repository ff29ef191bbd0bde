"""CROWN: linear functions of the input that are nowhere above what they bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.bounds.region import Region
from buttress.certificates.network.graph import INPUT, Ref
from buttress.certificates.operations.operation import Interval, LowerLines, usual_lines

Intervals = Mapping[Ref, Interval]
_AT_ONCE = 2**19  # numbers in the coefficients of margins that are held at once


@dataclass(frozen=True)
class LinearBound:
    """``slope x + offset``, nowhere above what it bounds for any input of the region.

    Attributes:
        slope: (S, N, 1, ...) by bounded value, input and feature.
        offset: (S, N).
    """

    slope: Tensor
    offset: Tensor

    def least(self, region: Region) -> Tensor:
        """(S, N) its least value in the region."""
        return region.least(self.slope) + self.offset


@dataclass(frozen=True)
class Functions:
    """S linear functions of some of a network's values, added up, for each of N inputs.

    Attributes:
        slopes: (S, N, 1, ...) coefficients by value.
        offset: (S, N).
    """

    slopes: dict[Ref, Tensor]
    offset: Tensor

    @classmethod
    def of(cls, ref: Ref, slope: Tensor) -> Functions:
        """Functions of one value, without an offset."""
        return cls({ref: slope}, slope.new_zeros(slope.shape[:2]))

    def parts(self, numbers: int) -> list[Functions]:
        """The functions in groups of as many as there are coefficients of one within so many numbers; one at least."""
        count = max(1, _AT_ONCE // numbers)
        slopes = {ref: torch.split(slope, count) for ref, slope in self.slopes.items()}
        offsets = torch.split(self.offset, count)
        return [Functions({ref: s[i] for ref, s in slopes.items()}, offset) for i, offset in enumerate(offsets)]

    def __neg__(self) -> Functions:
        return Functions({ref: -slope for ref, slope in self.slopes.items()}, -self.offset)


def linear_bound(
    network: BoundedNetwork, functions: Functions, intervals: Intervals, lines: LowerLines = usual_lines
) -> LinearBound:
    """Linear functions of the input below functions of later values, from these back to the input.

    Args:
        network: the network.
        functions: what is bounded.
        intervals: of what operations that are not affine take.
        lines: see `LowerLines`.

    Returns:
        The bounds of Zhang et al. (NeurIPS 2018), here of operations in any order of dependence.
    """
    reached = _back(network, functions, intervals, lines)
    slope = reached.slopes.get(Ref(INPUT))
    if slope is None:
        slope = reached.offset.new_zeros(*reached.offset.shape, *network.graph.shape)
    return LinearBound(slope, reached.offset)


def least_and_slope(
    network: BoundedNetwork, region: Region, functions: Functions, intervals: Intervals
) -> tuple[Tensor, Tensor]:
    """(S, N) the least values by linear bounds, and (1, N, 1, ...) the slope of each input's lowest bound.

    Functions are bounded a few at a time, so that memory does not grow with the number of classes.
    """
    largest = max(size.numel() for size in (network.graph.shape, *(network.graph.shape_of(ref) for ref in intervals)))
    found, lowest, steepest = list[Tensor](), None, None
    for part in functions.parts(len(region.x) * largest):
        line = linear_bound(network, part, intervals)
        found.append(line.least(region))
        least, place = found[-1].min(0)
        slope = line.slope.gather(0, place.view(1, -1, *[1] * (line.slope.dim() - 2)).expand(1, *line.slope.shape[1:]))
        if lowest is None or steepest is None:
            lowest, steepest = least, slope
        else:
            lower = (least < lowest).view(1, -1, *[1] * (slope.dim() - 2))
            lowest, steepest = torch.minimum(least, lowest), torch.where(lower, slope, steepest)
    assert steepest is not None
    return torch.cat(found), steepest


def before_affine(network: BoundedNetwork, functions: Functions) -> Functions:
    """The same functions, of the input and of what the last operations return that are not affine."""
    return _back(network, functions, {}, usual_lines, affine_alone=True)


def least_by_intervals(network: BoundedNetwork, functions: Functions, intervals: Intervals, region: Region) -> Tensor:
    """(S, N) the least value of functions, where what their last affine operations take is in its interval.

    The functions are folded into these operations before, as in Gowal et al. (2018).
    """
    largest = max(network.graph.shape_of(ref).numel() for ref in intervals)
    parts = functions.parts(len(region.x) * largest)
    return torch.cat([_least_by_intervals(network, part, intervals, region) for part in parts])


def _least_by_intervals(network: BoundedNetwork, functions: Functions, intervals: Intervals, region: Region) -> Tensor:
    reached = before_affine(network, functions)
    least = reached.offset
    for ref, slope in reached.slopes.items():
        if ref.index == INPUT:
            least = least + region.least(slope)
            continue
        low, high = intervals[ref]
        least = least + (slope.clamp(min=0) * low + slope.clamp(max=0) * high).flatten(2).sum(2)
    return least


def _back(
    network: BoundedNetwork,
    functions: Functions,
    intervals: Intervals,
    lines: LowerLines,
    *,
    affine_alone: bool = False,
) -> Functions:
    """Functions of the input, or of the outputs of the last operations that are not affine."""
    found, offset = dict(functions.slopes), functions.offset
    ends = dict[Ref, Tensor]()
    for index in range(max(ref.index for ref in found), INPUT - 1, -1):
        operation = None if index == INPUT else network.operations[index]
        for ref in [ref for ref in found if ref.index == index]:
            slope = found.pop(ref)
            if operation is None or (affine_alone and not operation.affine):
                ends[ref] = slope
                continue
            place = network.place(index).of(ref)
            inputs = {} if operation.affine else {source: intervals[source] for source in place.inputs}
            pulled, added = operation.pull(place, slope, inputs, lines)
            offset = offset + added
            for source, part in pulled.items():
                found[source] = found[source] + part if source in found else part
    return Functions(ends, offset)


def identity(features: Tensor, values: Tensor) -> Tensor:
    """(S, N, 1, ...) coefficients that are 1 for one of the features of values (N, 1, ...) each.

    Args:
        features: (S,) places in one input's flattened values.
        values: whose.
    """
    each = values.new_zeros(len(features), values[0].numel())
    each[torch.arange(len(features), device=values.device), features] = 1
    return each.view(len(features), 1, *values.shape[1:]).expand(-1, *values.shape)
