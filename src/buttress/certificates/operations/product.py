"""Products of two values that both depend on the input."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.operation import Interval, LowerLines, Operation, Place, Pull, summed, with_dims


class Product(Operation):
    """``u v``, feature by feature, between McCormick's planes (1976)."""

    def interval(self, place: Place, inputs: dict[Ref, Interval]) -> Interval:
        """The least and the largest of the products of the ends."""
        (low, high), (other_low, other_high) = self._ends(place, inputs)
        corners = torch.stack([end * other for end in (low, high) for other in (other_low, other_high)])
        return corners.amin(0), corners.amax(0)

    def pull(self, place: Place, output: Tensor, inputs: dict[Ref, Interval], lines: LowerLines) -> tuple[Pull, Tensor]:
        """Below the mean of the two planes that touch the product at two edges each; above of the other two."""
        (low, high), (other_low, other_high) = self._ends(place, inputs)
        middle, other = (low + high) / 2, (other_low + other_high) / 2
        below = -(low * other_low + high * other_high) / 2
        above = -(low * other_high + high * other_low) / 2
        offset = (output.clamp(min=0) * below + output.clamp(max=0) * above).flatten(2).sum(2)
        pulled: Pull = {}
        for argument, slope in zip(place.node.arguments, (other, middle), strict=True):
            part = summed(output * slope, place.graph.shape_of(argument))
            pulled[argument] = pulled[argument] + part if argument in pulled else part
        return pulled, offset

    def _ends(self, place: Place, inputs: dict[Ref, Interval]) -> tuple[Interval, Interval]:
        first, second = (inputs[argument] for argument in place.node.arguments)
        dims = max(first[0].dim(), second[0].dim())
        one, other = (tuple(with_dims(end, dims) for end in ends) for ends in (first, second))
        return (one[0], one[1]), (other[0], other[1])
