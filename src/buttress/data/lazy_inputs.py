"""Inputs that are not in memory: rows are read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from buttress.data.checks import as_float, check_box, description
from buttress.data.memory import require_memory
from buttress.errors import UserError


class InputSource(Protocol):
    """Where inputs are kept: files, members of archives, a data set of the user's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""

    @property
    def dtype(self) -> torch.dtype:
        """What they are read as: uint8 for images, as shares of 255; else float32."""

    def read(self, rows: Sequence[int]) -> Tensor:
        """The inputs with these numbers, (M, *shape).

        Raises:
            UserError: naming the file or input that cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False)
class LazyInputs:
    """Some inputs of a source, in place of a tensor (N, ...) of them.

    Indexing reads; `subset` chooses without reading.

    Args:
        source: where they are.
        rows: (N,) int64, their numbers there.
        box: lowest and highest value they may have, as of a `Dataset`.
    """

    source: InputSource
    rows: Tensor
    box: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """(N, ...)."""
        return torch.Size((len(self.rows), *self.source.shape))

    @property
    def dtype(self) -> torch.dtype:
        """As they are read."""
        return self.source.dtype

    @property
    def ndim(self) -> int:
        """Axes, that of the inputs among them."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What they would take in memory, as they are read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def dim(self) -> int:
        """Axes, as of a tensor."""
        return self.ndim

    def is_floating_point(self) -> bool:
        """Whether they are no bytes, as of a tensor."""
        return self.dtype.is_floating_point

    def subset(self, index: Tensor) -> LazyInputs:
        """Those at ``index``, not read yet."""
        return replace(self, rows=self.rows[index])

    def pooled(self, side: int) -> LazyInputs:
        """The same images, in which the mean of each square of ``side`` pixels is a pixel."""
        return replace(self, source=_Pooled(self.source, side))

    def require_room(self, count: int, itemsize: int) -> None:
        """Refuse so many at once, of so many bytes a number, where they do not fit into memory.

        Raises:
            UserError: saying what to type.
        """
        shape = tuple(self.shape[1:])
        require_memory(itemsize * math.prod(shape) * count, f"{count} inputs {shape} at once")

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Those at ``index``, read.

        Raises:
            UserError: for more than fit into memory, and as `InputSource.read`.
        """
        rows = self.rows[index].tolist()
        self.require_room(len(rows), self.dtype.itemsize)
        x = self.source.read(rows)
        if x.dtype != self.dtype or x.shape != (len(rows), *self.source.shape):
            expected = f"{str(self.dtype).removeprefix('torch.')} {(len(rows), *self.source.shape)}"
            raise UserError(f"expected inputs {expected} as at first, got {description(x)}: make them alike")
        if x.is_floating_point() and not x.isfinite().all():
            raise UserError("expected finite inputs, got NaN or infinity; clean the data first")
        check_box(x, self.box, "inputs")
        return x


@dataclass(frozen=True)
class _Pooled:
    """Images of another source at a lower resolution, as float32."""

    source: InputSource
    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        channels, height, width = self.source.shape
        return channels, height // self.side, width // self.side

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def read(self, rows: Sequence[int]) -> Tensor:
        return functional.avg_pool2d(as_float(self.source.read(rows)), self.side)
