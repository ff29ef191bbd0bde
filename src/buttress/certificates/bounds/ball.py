"""Intervals of the first weighted sums of a ball's points, which are smaller than those of the box around the ball."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.bounds.region import Region
from buttress.certificates.network.graph import INPUT, Ref
from buttress.certificates.operations.affine import Affine, Matrix
from buttress.certificates.operations.operation import Interval


class Ball:
    """The l2 ball that holds a region, as far as operations only move and scale its features.

    In l2 the interval of ``w x`` is its centre and eps ||w||_2. An l1 ball is inside of the l2 ball of the same eps.
    In linf there is nothing to gain, and nothing is held.
    """

    def __init__(self, network: BoundedNetwork, region: Region) -> None:
        self.network, self.budgets = network, region.budgets
        free = (region.high > region.low).to(region.x)
        # The centre of each value, and what each of its features is times one of the input's.
        self.held = dict[Ref, Interval]()
        if region.threat.norm != "linf":
            self.held[Ref(INPUT)] = region.x[:, None], free[:, None]

    def interval(self, index: int) -> Interval | None:
        """The interval of a node's output; None where it is no weighted sum of what is held."""
        place, operation = self.network.place(index), self.network.operations[index]
        inputs = place.inputs
        if not isinstance(operation, Affine) or len(inputs) != 1 or inputs[0] not in self.held:
            return None
        (ref,) = inputs
        centre, scale = self.held[ref]
        outputs = [place.of(Ref(index, output)) for output in range(len(place.node.shapes))]
        if not self.network.mixes(index):
            for part in outputs:
                moved = part.run({ref: centre}), operation.spread(part, {ref: scale})
                self.held[Ref(index, part.output)] = moved
            return None
        if not isinstance(operation, Matrix):
            return None
        middle = place.run({ref: centre})
        squares: Tensor = operation.powered(place, {ref: scale.square()}, 2)
        radius = self.budgets.view(-1, *[1] * (middle.dim() - 1)) * torch.sqrt(squares.clamp(min=0))
        return middle - radius, middle + radius
