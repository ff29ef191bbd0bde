"""What the user sees while a job runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from buttress.cli.progress_lines import ProgressLines, figures_text, percentage
from buttress.jobs.settings import Reporter
from buttress.training.loop import Progress

_REFRESH = 0.2  # seconds


class Terminal(Reporter):
    """Sentences on standard output; progress on standard error: a bar where that is a terminal, else plain lines.

    Args:
        quiet: write nothing.
        lines: where sentences go.
    """

    def __init__(self, *, quiet: bool = False, lines: TextIO | None = None) -> None:
        self._quiet = quiet
        self._lines = lines
        self._bar: Any = None
        self._task: Any = None

    @property
    def lines(self) -> TextIO:
        """Where sentences go."""
        return self._lines or sys.stdout

    def line(self, text: str) -> None:
        """Print a sentence, below a bar that is done."""
        self._end()
        if not self._quiet:
            self.lines.write(text + "\n")
            self.lines.flush()

    def watch(self, title: str) -> Progress | None:
        """A bar, or lines now and then, with the time left and the latest figures."""
        self._end()
        if self._quiet:
            return None
        if not sys.stderr.isatty():
            return ProgressLines(title, _to_standard_error)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[share]:>4}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(title, total=1.0, figures="", share="")
        last, before = 0.0, 0.0

        def progress(done: float, figures: Mapping[str, float]) -> None:
            nonlocal last, before
            now = time.monotonic()
            if self._bar is None or (now - last < _REFRESH and 0 < done < 1):
                return
            if done < before:  # a further piece of the work, with a pace of its own
                self._bar.reset(self._task)
            last, before = now, done
            self._bar.update(self._task, completed=done, figures=figures_text(figures), share=percentage(done))

        return progress

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def close(self) -> None:
        """Take the bar away, also after an error."""
        self._end()


def _to_standard_error(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
