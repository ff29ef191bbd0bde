"""Functions of one feature each, between two lines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.operation import Interval, LowerLines, Operation, Place, Pull


@dataclass(frozen=True)
class Lines:
    """Lines below and above a function between two ends, (N, 1, ...) each: ``slope z + offset``.

    Attributes:
        free: where the line below may have any slope from ``least`` to 1; None for nowhere.
        least: of these slopes.
    """

    low_slope: Tensor
    low_offset: Tensor
    high_slope: Tensor
    high_offset: Tensor
    free: Tensor | None = None
    least: Tensor | None = None


class Elementwise(Operation):
    """A function that is applied to each feature."""

    @abstractmethod
    def lines(self, place: Place, low: Tensor, high: Tensor) -> Lines:
        """Lines that enclose the function for inputs from ``low`` to ``high``."""

    def corners(self, place: Place) -> Sequence[float] | None:
        """Where linear pieces meet; None for a function that is not made of linear pieces."""
        return None

    def pull(self, place: Place, output: Tensor, inputs: dict[Ref, Interval], lines: LowerLines) -> tuple[Pull, Tensor]:
        """Zhang et al. (NeurIPS 2018): the line below for positive coefficients, that above for negative ones."""
        ((ref, (low, high)),) = inputs.items()
        line = self.lines(place, low, high)
        slope, below = line.low_slope, output.relu()  # whose gradient costs less than that of clamp
        above = output - below
        if line.free is not None and line.least is not None:
            slope = lines(place.index, slope, line.free, line.least)
        offset = (above * line.high_offset).flatten(2).sum(2)
        if bool((line.low_offset != 0).any()):
            offset = offset + (below * line.low_offset).flatten(2).sum(2)
        return {ref: below * slope + above * line.high_slope}, offset
