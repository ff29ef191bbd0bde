"""Runs jobs in worker processes and keeps each result, so that an interrupted reproduction goes on where it was."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from buttress.claims.jobs import run_job
from buttress.engine.machine import Accelerator, Machine
from buttress.errors import UserError
from buttress.jobs.settings import Reporter
from buttress.safe_files import write_text
from buttress.validation import whole

_VISIBLE = "CUDA_VISIBLE_DEVICES"

Job = dict[str, Any]
Result = dict[str, Any]


def key_of(job: Job) -> str:
    """A digest of a job's settings, different for different jobs."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:24]


class Work:
    """A folder of results, and the processes that add to it.

    Args:
        folder: one JSON file for each finished job.
        data_dir: where original data files are.
        pool: runs the jobs; they run here where there is none.
        reporter: receives messages and progress.
        accelerator: that jobs run on.
    """

    def __init__(
        self,
        folder: Path,
        data_dir: Path | None,
        pool: ProcessPoolExecutor | None,
        reporter: Reporter,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.folder, self.pool, self.reporter, self.accelerator = folder, pool, reporter, accelerator
        self.data_dir = None if data_dir is None else str(data_dir.resolve())
        self.seconds = 0.0  # of all jobs, those done before included
        self.devices: set[str] = set()  # that they ran on

    def run(self, jobs: Sequence[Job], title: str) -> list[Result]:
        """The results of ``jobs``, in their order; those in the folder already are not run again."""
        keys = [key_of(job) for job in jobs]
        results = {key: result for key in keys if (result := self._stored(key)) is not None}
        missing = {key: job for key, job in zip(keys, jobs, strict=True) if key not in results}
        self.reporter.line(f"{title}: {len(set(keys))} jobs, {len(results)} of them done before")
        progress = self.reporter.watch(title)
        for key, result in self._results(missing):
            write_text(self.folder / f"{key}.json", json.dumps({"job": missing[key], "result": result}))
            results[key] = result
            if progress is not None:
                progress(len(results) / len(set(keys)), {})
        self.seconds += sum(sum(results[key]["seconds"].values()) for key in set(keys))
        self.devices |= {results[key].get("device", "not recorded") for key in keys}  # by earlier versions it was not
        return [results[key] for key in keys]

    def _stored(self, key: str) -> Result | None:
        try:
            result: Result = json.loads((self.folder / f"{key}.json").read_text())["result"]
        except (OSError, ValueError, KeyError):
            return None
        return result

    def _results(self, jobs: dict[str, Job]) -> Iterator[tuple[str, Result]]:
        if self.pool is None:
            for key, job in jobs.items():
                yield key, run_job(job, self.data_dir, self.accelerator)
            return
        waiting: dict[Future[Result], str] = {
            self.pool.submit(run_job, job, self.data_dir, self.accelerator): key for key, job in jobs.items()
        }
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    yield waiting.pop(future), future.result()
                except BrokenProcessPool:
                    raise UserError(
                        "a worker process died, perhaps for lack of memory: go on with --resume and fewer --workers"
                    ) from None


def device_of(turn: int, devices: int, visible: str | None) -> str:
    """The name of the GPU of the worker that was started as number ``turn``, among those that CUDA is to see."""
    names = (visible.split(",") if visible else [str(number) for number in range(devices)])[:devices]
    return names[turn % len(names)]


def _begin(turns: Any, devices: int) -> None:
    """What a worker process does first: take one thread, a device, and see to it that it ends when its parent does.

    A parent that is killed cannot tell its workers, who would finish the job they are at and those already handed out.
    """
    torch.set_num_threads(1)
    if devices > 1:  # before CUDA is asked for anything; the worker then knows of this one
        with turns:
            turn, turns.value = turns.value, turns.value + 1
        os.environ[_VISIBLE] = device_of(turn, devices, os.environ.get(_VISIBLE))
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)  # from a thread nothing else ends the process; a job's result is written by the parent alone


@contextmanager
def open_work(
    folder: Path, data_dir: Path | None, workers: int, reporter: Reporter, machine: Machine = Machine()
) -> Iterator[Work]:
    """A `Work` with that many processes of one torch thread each; with 0, jobs run in this process."""
    whole("workers", workers, 0)
    devices = machine.devices or 1
    if machine.num_nodes not in (None, 1):
        raise UserError(f"workers run on one host; got num_nodes {machine.num_nodes}: leave --num-nodes out")
    if devices > max(1, workers):
        raise UserError(f"{devices} devices need as many workers; got {workers}: give --workers {devices}")
    if workers == 0:
        yield Work(folder, data_dir, None, reporter, machine.accelerator)
        return
    # Spawned, not forked: a forked torch may hang in its thread pool.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(spawn.Value("i", 0), devices))
    try:
        yield Work(folder, data_dir, pool, reporter, machine.accelerator)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
