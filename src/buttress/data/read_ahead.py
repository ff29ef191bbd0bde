"""Reading by other processes, while this one computes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from buttress.data.lazy_inputs import LazyInputs
from buttress.errors import UserError
from buttress.started import started

_MOST = 8  # processes by default: as many keep a GPU busy, and more take memory
_AHEAD = 2  # batches that each reads in advance
_SHARED = Path("/dev/shm")  # by which batches come back; containers often have 64 MB of it


def usual_workers() -> int:
    """Processes that read, by default: one for each core of this process's share, at most 8."""
    together = started()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST, max(1, cores // (1 if together is None else together.here)))


def read_ahead(x: LazyInputs, batches: Sequence[Tensor], workers: int, *, pinned: bool = False) -> Iterator[Tensor]:
    """Batches of inputs as stored, in order, the same for any number of workers.

    Args:
        x: the inputs.
        batches: the positions of each batch in ``x``.
        workers: processes that read; 0 reads in this one. At most as many as the shared memory has room for.
        pinned: whether they are put where a GPU copies them from at once.

    Raises:
        UserError: as reading ``x`` does, and when a worker is killed.
    """
    workers = min(workers, len(batches), _room(x, max(map(len, batches), default=0)))
    if workers < 1:
        yield from (x[rows] for rows in batches)
        return
    for batch in _told_when_lost(_started(_Batches(x, batches), workers, pinned=pinned)):
        if isinstance(batch, UserError):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Batches(TorchDataset[Tensor | UserError]):
    """A batch by its number; a mistake of the user's as a value, of which torch would make several lines."""

    x: LazyInputs
    batches: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Tensor | UserError:
        try:
            return self.x[self.batches[number]]
        except UserError as error:
            return error


def _started(batches: _Batches, workers: int, *, pinned: bool) -> Iterator[Tensor | UserError]:
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of more workers than cores, which wait for a slow disk
        loader: DataLoader[Tensor | UserError] = DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=_AHEAD,
            pin_memory=pinned,
            multiprocessing_context="fork" if sys.platform == "linux" else None,  # asks for no main guard of scripts
            generator=torch.Generator(),  # the loader would draw from the caller's
        )
        started_loader = iter(loader)
    if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
        # Torch's handler would raise in whatever line runs when a worker is killed; without it `next` finds out.
        signal.signal(signal.SIGCHLD, before)
    return started_loader


def _told_when_lost(batches: Iterator[Tensor | UserError]) -> Iterator[Tensor | UserError]:
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if str(error).startswith("Caught "):  # as torch hands on what was raised in a worker
                raise
            raise UserError(
                "a process that reads inputs was killed, perhaps for lack of memory: take fewer of them (--workers 1, "
                "or 0 to read without)"
            ) from None
        yield batch


def _room(x: LazyInputs, size: int) -> int:
    """Workers whose batches of ``size`` inputs fit into half of the shared memory that is free."""
    try:
        free = shutil.disk_usage(_SHARED).free
    except OSError:  # it is elsewhere, or there is none
        return _MOST * size
    batch = max(1, x.nbytes // max(1, len(x)) * size)
    return free // 2 // (batch * (_AHEAD + 1))
