"""Branches: some units' sides, with what is known of a margin there."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Branches:
    """B parts of one input's region, each with the one margin that is bounded there.

    Attributes:
        bounds: (B,) lower bounds of the margin.
        margins: (B,) which one, as a row of `Problem.margins`.
        sides: (B, units) int8: 1 where the unit is above its corner, -1 below, 0 where it may be either.
        slopes: (B, units) of the lines below units, from 0 for the least possible to 1.
        multipliers: (B, units) of the constraints that sides are, 0 or more.
    """

    bounds: Tensor
    margins: Tensor
    sides: Tensor
    slopes: Tensor
    multipliers: Tensor

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, places: Tensor) -> Self:
        """Those at places, or where a mask is True."""
        return type(self)(*(getattr(self, field.name)[places] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Branches]) -> Branches:
        """All of them."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def children(self, units: Tensor) -> Branches:
        """(2 B) with the unit of each branch (B,) above its corner, then below."""
        halves = []
        for side in (1, -1):
            sides = self.sides.scatter(1, units[:, None], side)
            halves.append(Branches(self.bounds, self.margins, sides, self.slopes, self.multipliers))
        return Branches.joined(halves)

    def lowest(self, count: int) -> tuple[Branches, Branches]:
        """The branches with the lowest bounds, and the others."""
        order = self.bounds.argsort()
        return self[order[:count]], self[order[count:]]
