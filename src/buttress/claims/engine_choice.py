"""Which engine runs the jobs of a reproduction."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from buttress.claims.engine import Engine
from buttress.claims.ray_driver import AUTO
from buttress.claims.ray_engine import ray_engine
from buttress.claims.worker_pool import local_engine
from buttress.engine.machine import Machine
from buttress.errors import UserError
from buttress.jobs.settings import Reporter
from buttress.validation import one_of

EngineName = Literal["local", "ray"]
USUAL_WORKERS = 2  # of this machine


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """What runs the jobs.

    Args:
        engine: local, for processes of this machine; or ray, for a cluster of Ray's that is running (buttress[ray]).
        address: where the cluster is, HOST:PORT of its head; auto, the default, for that which this host is part of.

    Raises:
        UserError: for an engine that there is not, and an address without a cluster.
    """

    flat: ClassVar[bool] = True  # its fields are options of the job itself on the command line

    engine: EngineName = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        one_of("engine", self.engine, get_args(EngineName))
        if self.address is not None and self.engine == "local":
            raise UserError("--address has no effect on --engine local: give --engine ray, or leave it out")

    def open(
        self, workers: int | None, data_dir: Path | None, machine: Machine, reporter: Reporter
    ) -> AbstractContextManager[Engine]:
        """The engine, which is closed at the end; see `local_engine` and `ray_engine`.

        Args:
            workers: jobs at a time; by default two here, and on a cluster as many as it has room for.
            data_dir: where original data files are.
            machine: on what.
            reporter: receives what a cluster says.
        """
        files = None if data_dir is None else str(data_dir.resolve())
        if self.engine == "ray":
            return ray_engine(self.address or AUTO, files, workers, machine, reporter)
        return local_engine(files, USUAL_WORKERS if workers is None else workers, machine)
