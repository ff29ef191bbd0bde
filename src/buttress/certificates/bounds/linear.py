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


def before_affine(network: BoundedNetwork, functions: Functions) -> Functions:
    """The same functions, of the input and of what the last operations return that are not affine."""
    return _back(network, functions, {}, usual_lines, affine_alone=True)


def least_by_intervals(network: BoundedNetwork, functions: Functions, intervals: Intervals, region: Region) -> Tensor:
    """(S, N) the least value of functions, where what their last affine operations take is in its interval.

    The functions are folded into these operations before, as in Gowal et al. (2018).
    """
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
