"""What APART remembers: a start for each training image, and a few sizes that climb the loss."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from buttress.data.augment import Geometry, draws
from buttress.data.dataset import Dataset
from buttress.defences.base.memory import Rows
from buttress.random import generator
from buttress.validation import one_of

Storage = Literal["float16", "int8", "float32"]

_STEPS = 127  # of an int8 between 0 and 1
_AT_ONCE = 1024  # images drawn at once


def check_storage(storage: str) -> None:
    """Refuse a storage that there is not.

    Raises:
        UserError: naming those there are.
    """
    one_of("storage", storage, get_args(Storage))


class Memory(nn.Module):
    """A number in [-1, 1] for every value of every training input, on the padded image where training crops.

    Args:
        data: its training split and augmentation.
        seed: of the training; the first values are 0.001 N(0, 1).
        storage: how a number is kept; "int8" takes a quarter of "float32" and rounds to 1/127, so that it starts at 0.
    """

    values: Tensor

    def __init__(self, data: Dataset, seed: int, storage: Storage) -> None:
        super().__init__()
        self.rows, self.augment, self.seed, self.shape = Rows(data.train), data.augment, seed, data.shape
        pad = 0 if data.augment is None else 2 * data.augment.pad
        shape = data.shape if not pad else (data.shape[0], data.shape[1] + pad, data.shape[2] + pad)
        values = torch.empty(len(data.train), *shape, dtype=getattr(torch, storage))
        random = generator(seed, "apart")
        for part in torch.split(values, _AT_ONCE):
            part.copy_(_packed(0.001 * torch.randn(part.shape, generator=random), part))
        self.register_buffer("values", values)

    def read(self, ids: Tensor, epoch: int) -> Tensor:
        """(N, ...) float32 values of these inputs, or finer, cropped and mirrored as their images are in that epoch."""
        stored, geometry = self._unpacked(self.values[self.rows(ids)]), self._geometry(ids, epoch)
        return stored if geometry is None else geometry.cut(stored, (self.shape[1], self.shape[2]))

    def write(self, ids: Tensor, epoch: int, values: Tensor) -> None:
        """Keep values of the inputs as they are in that epoch; what lies outside of their crops stays."""
        rows, geometry = self.rows(ids), self._geometry(ids, epoch)
        if geometry is not None:
            stored = self._unpacked(self.values[rows])
            values = geometry.put(values.to(stored.dtype), stored)
        self.values[rows] = _packed(values, self.values)

    def _unpacked(self, values: Tensor) -> Tensor:
        if values.is_floating_point():
            return values if values.dtype == torch.float64 else values.float()
        return values.float() / _STEPS

    def _geometry(self, ids: Tensor, epoch: int) -> Geometry | None:
        return None if self.augment is None else self.augment.geometry(draws(self.seed, epoch, ids), ids.device)


def _packed(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype) if like.is_floating_point() else (_STEPS * values).round().to(like.dtype)


class Sizes(nn.Module):
    """Scalars that climb the loss by SGD with momentum and weight decay; the rate rises from 0 and falls to 0 again.

    Args:
        first: their first values.
        lr: the highest rate.
        momentum: share of the last move that is kept.
        decay: weight decay; the sizes climb the loss minus decay / 2 times their squares.
    """

    values: Tensor
    velocity: Tensor

    def __init__(self, first: list[float], lr: float, momentum: float, decay: float) -> None:
        super().__init__()
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.register_buffer("values", torch.tensor(first))
        self.register_buffer("velocity", torch.zeros(len(first)))

    def climb(self, slope: Tensor, progress: float) -> None:
        """One step along the gradient of the loss.

        Args:
            slope: (K,) that gradient.
            progress: share of the training that is done, in [0, 1]; the rate is highest at 1/2.
        """
        self.velocity.mul_(self.momentum).add_(slope.to(self.velocity) - self.decay * self.values)
        self.values.add_(self.velocity, alpha=self.lr * (1 - abs(2 * progress - 1)))
