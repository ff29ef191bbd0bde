"""The process that talks to Ray.

Ray ends a process whose cluster is gone, or never was there, without an exception: this process, and not the job's own.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from buttress.claims.answers import Answer
from buttress.claims.jobs import Job
from buttress.claims.ray_task import Environment, make_task
from buttress.claims.worker_pool import end_with_parent
from buttress.engine.machine import Accelerator
from buttress.errors import UserError, one_line

AUTO = "auto"
TRIES = 4  # of a job whose worker, or its host, goes
_HEAD_SILENT = "RAY_gcs_rpc_server_reconnect_timeout_s"  # seconds until Ray gives up a head that does not answer


@dataclass(frozen=True)
class Settings:
    """How a cluster is used.

    Attributes:
        address: HOST:PORT of its head, or auto.
        accelerator: that jobs run on.
        data_dir: where original data files are on every host.
        at_once: the most jobs at a time; as many as the cluster has room for where that is None.
    """

    address: str
    accelerator: Accelerator
    data_dir: str | None
    at_once: int | None


@dataclass(frozen=True)
class Joined:
    """What cluster it is, and for how many jobs at a time it has room."""

    told: str
    at_once: int


# A line for the user; the cluster; what came of the job of that key; or why there will be nothing more.
Message = str | Joined | tuple[str, Answer] | Answer


def drive(connection: Connection, settings: Settings) -> None:
    """Join a cluster and run what comes through the connection, until that is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: who started this process ends it
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # Ray's own messages, which no setting of Ray's keeps quiet
        os.dup2(nowhere, stream)
    end_with_parent()
    os.environ.setdefault(_HEAD_SILENT, "10")
    try:
        serve(connection, settings)
    except UserError as error:
        connection.send(Answer(mistake=str(error)))
    except Exception:
        connection.send(Answer(fault=traceback.format_exc()))


def serve(connection: Connection, settings: Settings) -> None:
    """As `drive`, in this process.

    Raises:
        UserError: where the cluster cannot be joined, or has not what is asked for.
    """
    cluster = _Cluster(settings)
    connection.send(cluster.joined)
    try:
        while True:
            for message in cluster.answers(connection.recv()):
                connection.send(message)
    except EOFError:
        cluster.leave()
    except cluster.gone:
        return


class _Cluster:
    """A cluster that this process has joined."""

    def __init__(self, settings: Settings) -> None:
        import ray

        self._ray, self._settings = ray, settings
        self.gone: type[Exception] = ray.exceptions.LocalRayletDiedError
        try:
            ray.init(address=settings.address, log_to_driver=False, logging_level="CRITICAL")
        except ConnectionError:
            raise UserError(
                f"no Ray cluster is found at {settings.address}: {how_to_start(settings.address)}"
            ) from None
        except Exception as error:  # Ray refuses in many ways
            raise UserError(f"the Ray cluster at {settings.address} cannot be joined: {one_line(error)}") from None
        task, self._environment = make_task()
        self._mine: Environment = self._environment()
        has = ray.cluster_resources()
        gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 0))
        if settings.accelerator == "cuda" and not gpus:
            raise UserError(f"the Ray cluster at {settings.address} has no GPU: give --accelerator cpu, or auto")
        on_gpus = gpus > 0 and settings.accelerator in ("auto", "cuda")
        takes = {"num_gpus": 1} if on_gpus else {"num_cpus": 1}
        # What is lost is put again here, where it is counted and told.
        self._task = ray.remote(max_retries=0, **takes)(task)
        hosts = sum(bool(node["Alive"]) for node in ray.nodes())
        told = f"on Ray's cluster at {settings.address}: {_counted(hosts, 'node')}, {_counted(cpus, 'CPU')}"
        told += f", {_counted(gpus, 'GPU')}" * on_gpus
        room = gpus if on_gpus else cpus
        self.joined = Joined(told, min(room, settings.at_once or room))

    def leave(self) -> None:
        """Take leave of it, so that it does not wait for this process."""
        self._ray.shutdown()

    def answers(self, jobs: Mapping[str, Job]) -> Iterator[Message]:
        """What comes of each job, by its key, and a line for each that is put again.

        Raises:
            LocalRayletDiedError: when this host has no part in the cluster any more.
        """
        left, waiting, lost = list(jobs), dict[Any, str](), Counter[str]()
        most = self._settings.at_once or len(jobs)
        while left or waiting:
            while left and len(waiting) < most:
                key = left.pop(0)
                waiting[self._submit(jobs[key])] = key
            (reference,), _ = self._ray.wait(list(waiting), num_returns=1)
            key = waiting.pop(reference)
            try:
                answer: Answer | str = self._ray.get(reference)
            except self.gone:
                raise
            except self._ray.exceptions.RayError as error:
                lost[key] += 1
                reason = f"{type(error).__name__}: {one_line(error)}"
                if lost[key] == TRIES:
                    raise UserError(
                        f"the worker of a job went {TRIES} times ({reason}): see to memory and hosts of the "
                        "cluster, and go on with --resume"
                    ) from None
                left.append(key)  # the others first: it may be the job that kills its worker
                yield f"the worker of a job has gone, which is put again ({reason})"
                continue
            yield key, Answer(mistake=answer) if isinstance(answer, str) else answer

    def _submit(self, job: Job) -> Any:
        submit: Callable[..., Any] = self._task.remote
        settings = self._settings
        return submit(self._mine, job, settings.data_dir, settings.accelerator, str(Path.cwd()))


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def how_to_start(address: str) -> str:
    """What to type for a cluster at an address."""
    head = "HOST:6379" if address == AUTO else address
    port = head.rpartition(":")[2]
    return (
        f"start one with ray start --head --port {port}, and on each other host, this one included, with ray start "
        f"--address {head}"
    )
