"""One command in several processes: when one of them ends all do, with one message, and nobody waits for ever."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import timedelta
from threading import Event, Thread
from types import FrameType

from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed import DistError

from buttress.cli import last_words
from buttress.cli.commands import STOPPED
from buttress.engine.fabric import join
from buttress.processes import gather
from buttress.started import Started

_EVERY = 1.0  # seconds between two looks at the others
_SILENT = 120.0  # after so many without a sign of life a process counts as lost, as when its host has no power
_GRACE = 60.0  # seconds to end in order before this process is ended
_ENDED, _STATUS = "ended", "status"


class Terminated(KeyboardInterrupt):
    """SIGTERM came: from torchrun, which ends all when one has ended, or from who stops the job."""


def run_together(work: Callable[[], int], process: Started) -> int:
    """Run ``work`` in this process, beside the others; what it prints is printed by the first one alone.

    Args:
        work: the command; returns its exit status.
        process: which one this is.

    Raises:
        UserError: where the processes do not find each other.
        BaseException: what the command raises; `last_words.tell` then knows whether to tell it.
    """
    join()
    others = _Others(process)
    last_words.settle = others.settle
    before = signal.signal(signal.SIGTERM, _terminate)
    if process.rank == 0:
        status = work()
    else:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            status = work()
    if status == 0:
        gather(None)  # nobody leaves before all are done
        others.leave()
        signal.signal(signal.SIGTERM, before)
        last_words.settle = None
    return status


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


class _Others:
    """The other processes, by way of a store that they share: whether they live, and whether one has ended."""

    def __init__(self, process: Started) -> None:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        # Of its own: the group's is busy while a process waits in it.
        self._stores = [
            PrefixStore(f"buttress/{attempt}", TCPStore(host, port, is_master=False, timeout=timedelta(seconds=60)))
            for _ in range(2)  # one for each thread
        ]
        self._process = process
        self._over = Event()
        self._told: int | None = None
        Thread(target=self._watch, daemon=True).start()

    def leave(self) -> None:
        """Look no longer: all are done."""
        self._over.set()

    def settle(self, status: int) -> int | None:
        """See `last_words.settle`. The first process goes before, where all have the same to tell."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self._over.set()
        if self._told is not None:
            return self._told
        try:
            return _claim(self._stores[0], status, wait=self._process.rank > 0)
        except DistError:  # the store has gone with its process
            return None

    def _watch(self) -> None:
        store, ended = self._stores[1], False
        seen, since = b"", time.monotonic()
        looked_at = self._process.rank + 1 if self._process.rank + 1 < self._process.count else 0
        beats = 0
        while not ended and not self._over.wait(_EVERY):
            beats += 1
            try:
                store.set(f"alive/{self._process.rank}", str(beats))
                ended = store.check([_ENDED])
                name = f"alive/{looked_at}"
                sign = store.get(name) if store.check([name]) else b""
            except DistError:
                ended, sign = True, seen
            if sign != seen:
                seen, since = sign, time.monotonic()
            ended = ended or time.monotonic() - since > _SILENT
        if self._over.wait(_EVERY) or not ended:  # it ends by itself
            return
        self._end(store)

    def _end(self, store: PrefixStore) -> None:
        """End this process because another has; in order, if it can."""
        try:
            status = _claim(store, STOPPED + signal.SIGTERM, wait=False)
        except DistError:
            status = None
        if status is None:
            sys.stderr.write(last_words.LOST)
        self._told = STOPPED + signal.SIGTERM if status is None else status
        _thread.interrupt_main()
        if not self._over.wait(_GRACE):
            os._exit(self._told)


def _claim(store: PrefixStore, status: int, *, wait: bool) -> int | None:
    """None for the one process that tells why all end; the status that it ends with for the others."""
    end = time.monotonic() + _EVERY
    while wait and not store.check([_ENDED]) and time.monotonic() < end:
        time.sleep(0.05)
    if store.add(_ENDED, 1) == 1:
        store.set(_STATUS, str(status))
        return None
    store.wait([_STATUS], timedelta(seconds=10))
    return int(store.get(_STATUS))
