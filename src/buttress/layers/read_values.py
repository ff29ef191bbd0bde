"""Which numbers were read in a pass, so that what is a value under two names is one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import reductions

_WeakStorage: Any = reductions.StorageWeakRef


class ReadValues:
    """The values of one pass, by where they lie in memory."""

    def __init__(self) -> None:
        # The weak references keep an address from being given again.
        self._read: dict[int, tuple[Any, set[tuple[Any, ...]]]] = {}

    def known(self, value: Tensor) -> bool:
        """Whether these very numbers were read before, as a container's output is that of its last part; notes them.

        The same numbers in another shape or order of axes are known, another part of the same memory is not.
        """
        if value.is_inference() or value.is_nested or value.layout != torch.strided:
            return False
        storage = _WeakStorage(value.untyped_storage())
        numbers = (value._version, value.storage_offset(), value.dtype, _extent(value))
        _, before = self._read.setdefault(storage.cdata, (storage, set()))
        known = numbers in before
        before.add(numbers)
        return known


def _extent(value: Tensor) -> tuple[tuple[int, int], ...]:
    """Which numbers of its memory a tensor holds: strides and sizes, the same in every shape and order of axes."""
    extent: list[tuple[int, int]] = []
    for stride, size in sorted(zip(value.stride(), value.shape, strict=True), reverse=True):
        if size == 1:
            continue
        if extent and extent[-1][0] == size * stride:
            extent[-1] = (stride, size * extent[-1][1])
        else:
            extent.append((stride, size))
    return tuple(extent)
