"""Jobs in worker processes of this machine, or in this process: the engine that needs nothing else."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from threading import Thread
from typing import Any

import torch

from buttress.claims.answers import Answer, answer
from buttress.claims.engine import Engine
from buttress.claims.jobs import Job, Result, run_job
from buttress.engine.machine import Machine
from buttress.errors import ProcessLostError, UserError
from buttress.validation import whole

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def local_engine(data_dir: str | None, workers: int, machine: Machine = Machine()) -> Iterator[Engine]:
    """That many processes of one torch thread each; with 0, jobs run in this process.

    Args:
        data_dir: where original data files are.
        workers: processes.
        machine: on what; the processes take turns on several devices.

    Raises:
        UserError: for numbers of processes, devices and hosts that do not go together.
        ProcessLostError: from the engine, when a process was killed.
    """
    whole("workers", workers, 0)
    devices = machine.devices or 1
    if machine.num_nodes not in (None, 1):
        raise UserError(
            f"workers run on one host; got num_nodes {machine.num_nodes}: leave --num-nodes out, or use --engine ray"
        )
    if devices > max(1, workers):
        raise UserError(f"{devices} devices need as many workers; got {workers}: give --workers {devices}")
    if workers == 0:

        def here(jobs: Mapping[str, Job]) -> Iterator[tuple[str, Result]]:
            for key, job in jobs.items():
                yield key, run_job(job, data_dir, machine.accelerator)

        yield Engine(here, 0)
        return
    pool = processes(workers, devices)

    def results(jobs: Mapping[str, Job]) -> Iterator[tuple[str, Result]]:
        waiting = {pool.submit(answer, job, data_dir, machine.accelerator): key for key, job in jobs.items()}
        return _as_they_come(waiting)

    try:
        yield Engine(results, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_they_come(waiting: dict[Future[Answer], str]) -> Iterator[tuple[str, Result]]:
    while waiting:
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                yield waiting.pop(future), future.result().unwrap()
            except BrokenProcessPool:
                raise ProcessLostError(
                    "a worker process died, perhaps for lack of memory: go on with --resume and fewer --workers"
                ) from None


def processes(workers: int, devices: int = 1) -> ProcessPoolExecutor:
    """Processes that end when this one does, of one torch thread each, which take turns on the devices."""
    spawn = multiprocessing.get_context("spawn")  # not forked: a forked torch may hang in its thread pool
    return ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(spawn.Value("i", 0), devices))


def device_of(turn: int, devices: int, visible: str | None) -> str:
    """The name of the GPU of the worker that was started as number ``turn``, among those that CUDA is to see."""
    names = (visible.split(",") if visible else [str(number) for number in range(devices)])[:devices]
    return names[turn % len(names)]


def _begin(turns: Any, devices: int) -> None:
    """What a worker process does first: take one thread and a device, and see to it that it ends with its parent."""
    torch.set_num_threads(1)
    if devices > 1:  # before CUDA is asked for anything; the worker then knows of this one
        with turns:
            turn, turns.value = turns.value, turns.value + 1
        os.environ[_VISIBLE] = device_of(turn, devices, os.environ.get(_VISIBLE))
    end_with_parent()


def end_with_parent() -> None:
    """End this process when its parent does.

    A parent that is killed cannot tell its workers, who would finish the job they are at and those already handed out.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)  # from a thread nothing else ends the process; a job's result is written by the parent alone
