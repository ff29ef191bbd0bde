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
        slope: (S, N, ...) by bounded value, input and feature.
        offset: (S, N).
    """

    slope: Tensor
    offset: Tensor

    def least(self, region: Region) -> Tensor:
        """(S, N) its least value in the region."""
        return region.least(self.slope) + self.offset


def linear_bound(
    network: BoundedNetwork, of: Ref, output: Tensor, intervals: Intervals, lines: LowerLines = usual_lines
) -> LinearBound:
    """A linear function of the input below linear functions of a value, from the value back to the input.

    Args:
        network: the network.
        of: the value that is bounded.
        output: (S, N, ...) coefficients of S linear functions of it.
        intervals: of what operations that are not affine take.
        lines: see `LowerLines`.

    Returns:
        The bound of Zhang et al. (NeurIPS 2018), as of all operations in the order of their dependence.
    """
    at_input, offset = _back_to(network, of, output, intervals, lines, nonlinear=True)
    slope = at_input.get(Ref(INPUT))
    shape = (*output.shape[:2], *network.graph.shape[1:])
    return LinearBound(output.new_zeros(shape) if slope is None else slope, offset)


def least_by_intervals(network: BoundedNetwork, of: Ref, output: Tensor, intervals: Intervals) -> Tensor:
    """(S, N) the least of linear functions of a value, where what its last affine operations take is in its interval.

    The functions are folded into these operations before, as in Gowal et al. (2018).
    """
    ends, least = _back_to(network, of, output, intervals, usual_lines, nonlinear=False)
    for ref, slope in ends.items():
        low, high = intervals[ref]
        least = least + (slope.clamp(min=0) * low + slope.clamp(max=0) * high).flatten(2).sum(2)
    return least


def _back_to(
    network: BoundedNetwork, of: Ref, output: Tensor, intervals: Intervals, lines: LowerLines, *, nonlinear: bool
) -> tuple[dict[Ref, Tensor], Tensor]:
    """Coefficients of the input, or of the outputs of the last operations that are not affine, and what is added."""
    found = {of: output}
    ends = dict[Ref, Tensor]()
    offset = output.new_zeros(output.shape[:2])
    for index in range(of.index, INPUT - 1, -1):
        operation = None if index == INPUT else network.operations[index]
        here = [ref for ref in found if ref.index == index]
        for ref in here:
            slope = found.pop(ref)
            if operation is None or not (nonlinear or operation.affine):
                ends[ref] = slope
                continue
            place = network.place(index)
            inputs = {r: intervals[r] for r in place.inputs} if not operation.affine else {}
            pulled, added = operation.pull(place.of(ref), slope, inputs, lines)
            offset = offset + added
            for source, part in pulled.items():
                found[source] = found[source] + part if source in found else part
    return ends, offset


def identity(features: Tensor, shape: torch.Size, like: Tensor) -> Tensor:
    """(S, N, ...) coefficients that are 1 for one feature each, ``features`` (S,) of one flattened input."""
    each = like.new_zeros(len(features), shape[1:].numel())
    each[torch.arange(len(features), device=like.device), features] = 1
    return each.view(len(features), 1, *shape[1:]).expand(-1, *shape)
