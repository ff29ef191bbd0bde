import os
import signal

import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from buttress.data.lazy_inputs import LazyInputs
from buttress.data.read_ahead import read_ahead
from buttress.errors import UserError


class Source:
    """Inputs that are their own numbers; some cannot be read, and of one the reader dies."""

    shape, dtype = (1,), torch.float32

    def __init__(self, missing=(), deadly=()):
        self.missing, self.deadly, self.parent = missing, deadly, os.getpid()

    def read(self, rows):
        for row in rows:
            if row in self.missing:
                raise UserError(f"file {row} is gone")
            if row in self.deadly and os.getpid() != self.parent:
                os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(rows).float()[:, None]


def inputs(**faults):
    return LazyInputs(Source(**faults), torch.arange(100))


BATCHES = torch.split(torch.randperm(100, generator=torch.Generator().manual_seed(0)), 7)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_whoever_reads_them(workers):
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    read = list(read_ahead(inputs(), BATCHES, workers))
    assert [x.flatten().long().tolist() for x in read] == [rows.tolist() for rows in BATCHES]
    assert torch.get_rng_state().equal(before)
    assert signal.getsignal(signal.SIGCHLD) is handler


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_of_the_users_comes_as_it_was_said(workers):
    with pytest.raises(UserError, match=r"^file 3 is gone$"):
        list(read_ahead(inputs(missing=[3]), BATCHES, workers))


def test_a_worker_that_is_killed_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(
        _MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,)
    )  # it looks after 5 seconds
    with pytest.raises(UserError, match=r"^a process that reads inputs was killed.*--workers 1, or 0"):
        list(read_ahead(inputs(deadly=[BATCHES[5][0].item()]), BATCHES, 1))


def test_without_shared_memory_this_process_reads(monkeypatch):
    monkeypatch.setattr("buttress.data.read_ahead.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    assert len(list(read_ahead(inputs(deadly=range(100)), BATCHES, 4))) == len(BATCHES)
