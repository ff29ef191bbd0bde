"""ReLU and its relatives: two linear pieces that meet at 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.elementwise import Elementwise, Lines
from buttress.certificates.operations.operation import Interval, Place


class ReLU(Elementwise):
    """``max(z, 0)``, or with another slope for negative inputs: LeakyReLU, PReLU.

    Args:
        at: the place of the left slope among the arguments; None for a slope of 0.
        usual: the left slope where it was not given.
    """

    def __init__(self, at: int | None = None, usual: float = 0.0) -> None:
        self.at, self.usual = at, usual

    def left(self, place: Place, like: Tensor) -> Tensor:
        """The slope for negative inputs, to be broadcast with the input."""
        arguments = place.node.arguments
        given = place.constant(arguments[self.at]) if self.at is not None and len(arguments) > self.at else self.usual
        return torch.as_tensor(given, dtype=like.dtype, device=like.device)

    def corners(self, place: Place) -> Sequence[float]:
        """At 0."""
        return (0.0,)

    def interval(self, place: Place, inputs: dict[Ref, Interval]) -> Interval:
        """The ends' values; of a function that falls left of 0, the 0 between them, too."""
        ((ref, (low, high)),) = inputs.items()
        ends = place.run({ref: low}), place.run({ref: high})
        if bool((self.left(place, low) >= 0).all()):
            return ends
        lowest = torch.minimum(*ends)
        return torch.where((low < 0) & (high > 0), lowest.clamp(max=0), lowest), torch.maximum(*ends)

    def undecided(self, low: Tensor, high: Tensor) -> Tensor:
        """Where 0 is inside: elsewhere the function is one of its pieces."""
        return (low < 0) & (high > 0)

    def lines(self, place: Place, low: Tensor, high: Tensor) -> Lines:
        """Above the chord; below the piece that the function follows for more than half of the interval.

        Below, every slope from the left one to 1 through the origin holds, too. Where the left slope is above 1, above
        and below are the other way round.
        """
        left = self.left(place, low).expand_as(low)
        crossing = self.undecided(low, high)
        right = torch.ones_like(left)
        width = torch.where(crossing, high - low, right)  # not 0 where there is nothing to divide: gradients pass here
        chord = torch.where(crossing, (high - left * low) / width, right)
        chord = torch.where(crossing | (low >= 0), chord, left)
        offset = torch.where(crossing, (left - chord) * low, 0.0)
        piece = torch.where(crossing, torch.where(high >= -low, right, left), chord)
        none = torch.zeros_like(offset)
        convex = left <= 1
        return Lines(
            torch.where(convex, piece, chord),
            torch.where(convex, none, offset),
            torch.where(convex, chord, piece),
            torch.where(convex, offset, none),
            crossing & convex,
            left,
        )
