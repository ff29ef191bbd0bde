"""Where the inputs are in a layer's value, or why it has no part for each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the inputs are in a layer's value.

    Attributes:
        axis: the one that grows with their number.
        dims: how many axes there are.
        outer: how many entries of each input lie apart in that axis, the inputs in between: more than one where time,
            windows or heads are folded into it before them.
        inner: how many lie in a run, for what is folded behind them. An input has ``outer * inner`` entries.
        before: how many entries of that axis belong to no input and lie before them, as those of prototypes.
        behind: how many lie behind them.
    """

    axis: int
    dims: int
    outer: int = 1
    inner: int = 1
    before: int = 0
    behind: int = 0

    @property
    def of_none(self) -> int:
        """How many entries belong to no input."""
        return self.before + self.behind

    def fits(self, value: Tensor, n: int) -> bool:
        """Whether a value can be that of n inputs."""
        each = self.outer * self.inner
        if n == 1 and each == 1 and not self.of_none and value.dim() == self.dims - 1:
            return True  # squeezed
        return value.dim() == self.dims and value.shape[self.axis] == n * each + self.of_none

    def to_rows(self, value: Tensor, n: int) -> Tensor:
        """(n, ...) a layer's value for n inputs, the inputs first."""
        if value.dim() == self.dims - 1:
            value = value.unsqueeze(self.axis)
        value = value.movedim(self.axis, 0)
        if self.of_none:
            value = value[self.before : len(value) - self.behind]
        if self.outer * self.inner == 1:
            return value
        return value.reshape(self.outer, n, self.inner, *value.shape[1:]).transpose(0, 1).flatten(1, 2)

    def in_place_of(self, value: Tensor, rows: Tensor) -> Tensor:
        """These rows as the network has ``value``, squeezed or not: a copy, which the network may write over.

        What belongs to no input is as in ``value``.
        """
        own = self.from_rows(rows)
        if self.of_none:
            before, behind = self.shared(value)
            own = torch.cat([before.movedim(0, self.axis), own, behind.movedim(0, self.axis)], self.axis)
        return own.reshape(value.shape).clone()

    def shared(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """What belongs to no input, before and behind the inputs', along the first axis."""
        value = value.movedim(self.axis, 0)
        return value[: self.before], value[len(value) - self.behind :]

    def from_rows(self, rows: Tensor) -> Tensor:
        """The value as the network has it, of what `to_rows` gives; without what belongs to no input."""
        if self.outer * self.inner > 1:
            rows = rows.reshape(-1, self.outer, self.inner, *rows.shape[2:]).transpose(0, 1).flatten(0, 2)
        return rows.movedim(0, self.axis)


@dataclass(frozen=True)
class Unaligned:
    """A layer whose value for several inputs does not fall into a part for each.

    Attributes:
        reason: why, to follow the layer's name.
        one_at_a_time: whether it has a value for an input that is computed alone.
        repeated: of a constant that is held once for each input, where the inputs are in it.
    """

    reason: str
    one_at_a_time: bool
    repeated: Layout | Unaligned | None = None

    @property
    def unmeasured(self) -> str:
        """The reason, of a layer for which looking at inputs alone has not helped either."""
        return f"{self.reason}, and has no value for an input alone" if self.one_at_a_time else self.reason


UNPAIRED = Unaligned("is not computed of the same parts of an input when that is perturbed", False)


CONSTANT = Unaligned("does not depend on the input", False)
MIXED = Unaligned("relates inputs to each other: several of its axes grow with their number", False)
FOLDED = Unaligned("holds several values for each input, in an order that cannot be told", True)
ORDER = Unaligned("does not follow the order of the inputs, as what is sorted, shuffled or packed", True)
WHOLE = Unaligned("is of one size for any number of inputs, as a mean over all of them is", False)
EMPTY = Unaligned("holds no numbers", False)
PART = Unaligned("is computed for a part of the inputs at a time", True)
FILLED = Unaligned("is of a batch that the network fills up, and what fills it cannot be told from the inputs", False)
_NESTED = Unaligned("is a nested tensor, in which inputs have parts of different sizes", False)
_SPARSE = Unaligned("is a sparse tensor, which holds some of its numbers only", False)


def unreadable(value: Tensor) -> Unaligned | None:
    """Why the numbers of a tensor cannot be read input by input, whatever the pass; None of any usual one."""
    if value.is_nested:
        return _NESTED
    return None if value.layout == torch.strided else _SPARSE
