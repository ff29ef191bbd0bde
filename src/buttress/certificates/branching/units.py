"""What branches are made of: activations that may be on either side of a corner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.certificates.bounds.linear import Intervals
from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.elementwise import Elementwise
from buttress.certificates.operations.operation import Interval


@dataclass(frozen=True)
class Block:
    """Units that are features of one value.

    Attributes:
        ref: the value.
        features: (U,) places in it, flattened.
        corners: (U,) where each bends.
        start: the number of the first.
    """

    ref: Ref
    features: Tensor
    corners: Tensor
    start: int

    def of(self, values: Tensor) -> Tensor:
        """(B, U) this block's part of a number for each unit, (B, all units)."""
        return values[:, self.start : self.start + len(self.features)]

    def at(self, values: Tensor) -> Tensor:
        """(B, U) a value (B, ...) at its units."""
        return values.flatten(1)[:, self.features]

    def spread(self, numbers: Tensor, like: Tensor) -> Tensor:
        """Numbers (B, U) added up at the features that they belong to: like the value (B, ...)."""
        empty = torch.zeros_like(like).flatten(1)
        return empty.index_add(1, self.features, numbers).view_as(like)


class Units:
    """All units of one input: a corner of a function of linear pieces, strictly inside of what it takes.

    Args:
        network: the network.
        intervals: of what operations take that are not affine, of one input.
    """

    def __init__(self, network: BoundedNetwork, intervals: Intervals) -> None:
        self.intervals = {ref: intervals[ref] for ref in network.decided_by}
        self.blocks, self.count = list[Block](), 0
        for ref, consumers in network.decided_by.items():
            for corner in sorted(set().union(*(_corners(network, index) for index in consumers))):
                low, high = self.intervals[ref]
                features = ((low < corner) & (high > corner)).flatten().nonzero().squeeze(1)
                if len(features):
                    corners = torch.full_like(features, corner, dtype=low.dtype)
                    self.blocks.append(Block(ref, features, corners, self.count))
                    self.count += len(features)

    def assumed(self, sides: Tensor) -> dict[Ref, Interval]:
        """Intervals that sides alone say: (B, units) 1 above the unit's corner, -1 below, 0 either."""
        found: dict[Ref, Interval] = {}
        for ref, (low, _) in self.intervals.items():
            ends = [low.new_full((len(sides), low[0].numel()), end) for end in (-torch.inf, torch.inf)]
            for block in (block for block in self.blocks if block.ref == ref):
                side, (below, above) = block.of(sides), (end[:, block.features] for end in ends)
                ends[0][:, block.features] = torch.where(side > 0, block.corners.maximum(below), below)
                ends[1][:, block.features] = torch.where(side < 0, block.corners.minimum(above), above)
            found[ref] = ends[0].view(-1, *low.shape[1:]), ends[1].view(-1, *low.shape[1:])
        return found

    def split(self, sides: Tensor) -> dict[Ref, Interval]:
        """The intervals of the whole region, and what sides say."""
        found: dict[Ref, Interval] = {}
        for ref, (low, high) in self.assumed(sides).items():
            found[ref] = torch.maximum(low, self.intervals[ref][0]), torch.minimum(high, self.intervals[ref][1])
        return found

    def open(self, intervals: Intervals) -> Tensor:
        """(B, units) bool: whose corner is still inside."""
        parts = []
        for block in self.blocks:
            low, high = (block.at(end) for end in intervals[block.ref])
            parts.append((low < block.corners) & (high > block.corners))
        return self._joined(parts, intervals)

    def room(self, intervals: Intervals) -> tuple[Tensor, Tensor]:
        """(B, units) how far each corner is from the lower and from the upper end."""
        below = [block.corners - block.at(intervals[block.ref][0]) for block in self.blocks]
        above = [block.at(intervals[block.ref][1]) - block.corners for block in self.blocks]
        return self._joined(below, intervals), self._joined(above, intervals)

    def _joined(self, parts: list[Tensor], intervals: Intervals) -> Tensor:
        (low, _), *_ = intervals.values()
        return torch.cat(parts, 1) if parts else low.new_zeros(len(low), 0)


def _corners(network: BoundedNetwork, index: int) -> set[float]:
    operation = network.operations[index]
    corners = operation.corners(network.place(index)) if isinstance(operation, Elementwise) else None
    return set(corners or ())
