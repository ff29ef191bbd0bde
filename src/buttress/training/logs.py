"""A run's figures as CSV and by loggers."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from buttress.safe_files import write_text
from buttress.training.loggers import LOGGERS, Logger, LoggerName, Run

log = logging.getLogger(__name__)


class Logs:
    """Where a run's figures go, as a context for as long as it trains.

    A logger that fails is told in one line and not asked again: its figures are in ``metrics.csv`` too, and no training
    is lost for it.

    Args:
        folder: gets ``metrics.csv``, whole after each epoch, so a resumed run has no row twice; None writes nothing.
        step: steps done when the run starts or goes on.
        loggers: that record the same rows.
    """

    def __init__(self, folder: Path | None, step: int, loggers: Sequence[LoggerName] = ()) -> None:
        self.folder = folder
        self.run = None if folder is None else Run(folder, step)
        self.kinds = {name: LOGGERS[name] for name in loggers}
        self.open: dict[LoggerName, Logger] = {}

    def __enter__(self) -> Logs:
        """Open what is to be open before the first step."""
        self._make(at_once=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing more is written."""
        for name, logger in list(self.open.items()):
            self._try(name, partial(logger.close, finished=kind is None))

    def write(self, history: list[dict[str, float]], step: int) -> None:
        """Write the rows so far; the last one is new, at ``step``."""
        if self.folder is None:
            return
        names = list(dict.fromkeys(name for row in history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.folder / "metrics.csv", text.getvalue())
        self._make(at_once=False)
        for name, logger in list(self.open.items()):
            self._try(name, partial(logger.write, history[-1], step))

    def _make(self, *, at_once: bool) -> None:
        """Open the loggers of this kind that are not yet open."""
        if self.run is None:
            return
        run = self.run
        for name, kind in list(self.kinds.items()):
            if kind.at_once == at_once and name not in self.open:
                made = self._try(name, partial(kind, run))
                if made is not None:
                    self.open[name] = made

    def _try(self, name: LoggerName, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except Exception as error:  # of whatever kind the library has
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("the logger %s failed; the training goes on, with its figures in metrics.csv: %s", name, reason)
            self.open.pop(name, None)
            self.kinds.pop(name)
            return None
