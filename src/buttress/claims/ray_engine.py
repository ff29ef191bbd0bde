"""Jobs on a cluster of Ray's; their results come back to this process, so that its hosts need no common folder."""

from __future__ import annotations

import importlib.util
import multiprocessing
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection

from buttress.claims.answers import Answer
from buttress.claims.engine import Engine
from buttress.claims.jobs import Job, Result
from buttress.claims.ray_driver import AUTO, Joined, Message, Settings, drive, how_to_start
from buttress.engine.machine import Machine
from buttress.errors import ProcessLostError, UserError
from buttress.jobs.no_effect import refuse_without_effect
from buttress.jobs.settings import Reporter
from buttress.validation import whole

_KNOCK = 5.0  # seconds to reach a head


@contextmanager
def ray_engine(
    address: str, data_dir: str | None, workers: int | None, machine: Machine, reporter: Reporter
) -> Iterator[Engine]:
    """A cluster that is running, with one CPU, or one GPU, for each job.

    Every host needs the same Python, torch and buttress, the data files in the same place, and files of the user's
    own that a recipe names. A job whose worker or host goes is put again, `ray_driver.TRIES` times in all.

    Args:
        address: HOST:PORT of its head, or auto: that of RAY_ADDRESS, or of this host.
        data_dir: where original data files are.
        workers: the most jobs at a time; None for as many as there is room for.
        machine: whose accelerator jobs run on; auto is GPUs where the cluster has any.
        reporter: receives messages.

    Raises:
        UserError: without Ray, without a cluster at the address, and where another Python, torch or buttress is.
        ProcessLostError: from the engine, when the cluster's head has gone.
    """
    refuse_without_effect(machine, ("accelerator",), "a Ray cluster, which knows its devices")
    if workers is not None:
        whole("workers", workers)
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs Ray: pip install 'buttress[ray]' on every host of the cluster")
    _knock(address)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    settings = Settings(address, machine.accelerator, data_dir, workers)
    process = spawn.Process(target=drive, args=(theirs, settings), daemon=True)
    process.start()
    theirs.close()
    try:
        driver = _Driver(ours, address, reporter)
        yield Engine(driver.results, driver.at_once)
        ours.close()
        process.join(10)  # it takes leave of the cluster
    finally:
        process.kill()
        process.join()


class _Driver:
    """The process that talks to Ray, as seen from here.

    Raises:
        UserError: where the cluster cannot be joined.
    """

    def __init__(self, connection: Connection, address: str, reporter: Reporter) -> None:
        self._connection, self._address, self._reporter = connection, address, reporter
        joined = self._receive(UserError(f"the Ray cluster at {address} cannot be joined: {how_to_start(address)}"))
        assert isinstance(joined, Joined)
        reporter.line(joined.told)
        self.at_once = joined.at_once

    def results(self, jobs: Mapping[str, Job]) -> Iterator[tuple[str, Result]]:
        """Of each job, as it comes."""
        lost = ProcessLostError(
            f"the Ray cluster at {self._address} has gone (was its head killed?); what was done is kept: start it "
            "again, and go on with the same command and --resume"
        )
        try:
            self._connection.send(dict(jobs))
        except OSError:
            raise lost from None
        for _ in jobs:
            message = self._receive(lost)
            assert isinstance(message, tuple)
            key, answer = message
            yield key, answer.unwrap()

    def _receive(self, lost: UserError) -> Message:
        while True:
            try:
                message: Message = self._connection.recv()
            except (EOFError, OSError):
                raise lost from None
            if isinstance(message, Answer):
                message.unwrap()  # says why there is nothing more
            elif not isinstance(message, str):
                return message
            else:
                self._reporter.line(message)


def _knock(address: str) -> None:
    """Find out whether anything listens there: Ray itself would try for long.

    Raises:
        UserError: for what is no address, and where nothing listens.
    """
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"address must be HOST:PORT of a Ray cluster's head, or auto; got {address!r}")
    try:
        socket.create_connection((host, int(port)), _KNOCK).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise UserError(f"no Ray cluster answers at {address} ({reason}): {how_to_start(address)}") from None
