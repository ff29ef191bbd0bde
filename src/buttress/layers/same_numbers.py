"""Where the numbers of one tensor are in another, as those of a view, a transpose, a part or a copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SameNumbers:
    """Where in a row of one tensor the numbers of another's row are.

    Attributes:
        index: (M,) places in a flattened row.
        shape: of the other's row.
        same: whether it is the same row.
    """

    index: Tensor
    shape: torch.Size
    same: bool

    def read(self, z: Tensor) -> Tensor:
        """(n, ...) the other tensor for these rows."""
        return z.flatten(1)[:, self.index].view(len(z), *self.shape)


def same_numbers(z: Tensor, other: Tensor) -> SameNumbers | None:
    """Where in ``z`` the numbers of ``other`` are, the same in every row; None where they are not all there.

    They are where both use the same memory, or where one is a copy: as many numbers, all equal and not all alike.
    """
    width, rows = z[:1].numel(), torch.arange(len(z), device=z.device)
    if z.dtype != other.dtype or z.device != other.device:
        return None
    here = torch.arange(width, device=z.device)
    if z.shape == other.shape and z.stride() == other.stride() and z.data_ptr() == other.data_ptr():
        return SameNumbers(here, other.shape[1:], True)
    if z.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
        memory = torch.arange(z.untyped_storage().nbytes() // z.element_size(), device=z.device)
        place = torch.full_like(memory, -1)
        place[_in_memory(memory, z).flatten()] = torch.arange(z.numel(), device=z.device)
        index = place[_in_memory(memory, other)].flatten(1) - width * rows[:, None]
        inside = bool(((index >= 0) & (index < width) & (index == index[:1])).all())
        return SameNumbers(index[0], other.shape[1:], False) if inside else None
    if z.shape == other.shape and torch.equal(z, other) and bool((z != z.flatten()[0]).any()):
        return SameNumbers(here, other.shape[1:], True)
    return None


def _in_memory(memory: Tensor, view: Tensor) -> Tensor:
    """Of each number of a view, its place in the storage."""
    return memory.as_strided(view.shape, view.stride(), view.storage_offset())
