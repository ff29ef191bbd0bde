"""Training batches as a function of (seed, epoch, index): nothing to save, nothing to restore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from buttress.data.augment import draws
from buttress.data.dataset import Dataset
from buttress.data.memory import fits
from buttress.data.read_ahead import read_ahead, usual_workers
from buttress.data.tokens import TokenSplit
from buttress.defences.base.defence import Batch
from buttress.errors import UserError
from buttress.random import generator
from buttress.validation import whole


class Batches:
    """The training split in shuffled, augmented batches, bit for bit the same wherever its inputs are.

    Inputs in memory are moved to ``device`` whole, once, where they take no more than half of what is free there, and
    else batch by batch; others are read by worker processes as they are needed.

    Args:
        data: its ``train`` split and its augmentation are used; tokens are read as their values at present.
        size: inputs per batch, over all processes; the last batch of an epoch may be smaller.
        seed: what order and augmentation depend on.
        device: where the batches are wanted.
        rank: this process, of ``world`` processes that share each batch.
        dtype: of the inputs.
        workers: processes that read inputs which are not in memory, see `read_ahead`; `usual_workers` by default.
    """

    def __init__(
        self,
        data: Dataset,
        size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        dtype: torch.dtype = torch.float32,
        workers: int | None = None,
    ) -> None:
        split = data.train
        whole("batch_size", size)
        if len(split) < 1:
            raise UserError("training needs one input at least; the training split is empty")
        self.split, self.device = split, device
        self.x = _placed(split.x, device) if isinstance(split.x, Tensor) else split.x
        self.y, self.ids = _placed(split.y, device), split.ids.to(device)
        self.augment, self.size, self.seed, self.rank, self.world = data.augment, size, seed, rank, world
        self.dtype, self.workers = dtype, usual_workers() if workers is None else workers
        full, rest = divmod(len(split), size)
        # A lone input cannot pass through BatchNorm: a rest of less than two per process is left to the next epoch.
        self.per_epoch = full + (rest >= 2 * world or full == 0)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from the one with index ``start``.

        Raises:
            UserError: for inputs that can no longer be read.
        """
        order = torch.randperm(len(self.y), generator=generator(self.seed, "order", number))
        parts = [part[self.rank :: self.world] for part in torch.split(order, self.size)[start : self.per_epoch]]
        for rows, stored in zip(parts, self._stored(parts), strict=True):
            tokens = None
            if isinstance(self.split, TokenSplit):
                stored, tokens = self.split.read(stored), self.split.tokens(stored)
            x = stored.to(self.dtype) / 255 if stored.dtype == torch.uint8 else stored.to(self.dtype)
            ids = _taken(self.ids, rows, self.device)
            if self.augment is not None:
                x = self.augment(x, draws(self.seed, number, ids))
            yield Batch(x, _taken(self.y, rows, self.device), ids, tokens)

    def _stored(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """The inputs of each batch as stored, on the device."""
        if isinstance(self.x, Tensor):
            return (_taken(self.x, rows, self.device) for rows in parts)
        read = read_ahead(self.x, parts, self.workers, pinned=self.device.type == "cuda")
        return (_moved(stored, self.device) for stored in read)


def _placed(values: Tensor, device: torch.device) -> Tensor:
    """On the device, or where they are, if they would leave the network too little room there."""
    return values.to(device) if values.device == device or fits(values.nbytes, device) else values


def _taken(values: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Some rows, on the device."""
    taken = values[rows.to(values.device)]
    return _moved(taken.pin_memory() if device.type == "cuda" and taken.device.type == "cpu" else taken, device)


def _moved(values: Tensor, device: torch.device) -> Tensor:
    """On the device; a GPU copies from pinned memory while this process goes on, others are waited for."""
    return values.to(device, non_blocking=device.type == "cuda")
