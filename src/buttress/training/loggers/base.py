"""What all loggers share: a run as they see it, and what they are told of it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from buttress.safe_files import write_text
from buttress.training.run_folder import LOGGED, MARK


@dataclass(frozen=True)
class Run:
    """One training in its folder.

    Attributes:
        folder: of the run.
        step: steps done when it starts or goes on.
    """

    folder: Path
    step: int

    @property
    def name(self) -> str:
        """For people: the folder and the one around it, as in runs/at."""
        return "/".join(self.folder.absolute().parts[-2:])

    def settings(self) -> dict[str, Any]:
        """What the result of the training depends on, as plain data."""
        return cast(dict[str, Any], json.loads((self.folder / MARK).read_text())["settings"])

    def identity(self, logger: str) -> str | None:
        """What the logger called this run before, or None."""
        return self._identities().get(logger)

    def remember(self, logger: str, identity: str) -> None:
        """Keep what the logger calls this run, for when it goes on."""
        write_text(self.folder / LOGGED, json.dumps({**self._identities(), logger: identity}))

    def _identities(self) -> dict[str, str]:
        file = self.folder / LOGGED
        return json.loads(file.read_text()) if file.exists() else {}


class Logger(ABC):
    """Where the figures of a run go, from when it is made until `close`. It may raise anything.

    Attributes:
        package: that it needs.
        install: what to install for it.
        at_once: whether it is made before the first step, so that what is wrong with it is told then; else with the
            first figures.
    """

    package: ClassVar[str]
    install: ClassVar[str]
    at_once: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, run: Run) -> None:
        """Begin the record of this run, or go on with it."""

    @abstractmethod
    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Record an epoch's figures, after so many steps; the same ones may come once more after a kill."""

    @abstractmethod
    def close(self, *, finished: bool) -> None:
        """Nothing more is written; the training is over, or was interrupted and may go on."""
