"""Putting questions to a network on its test data, with what the user sees meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from buttress import audits as audit_room
from buttress import tasks
from buttress.audits import Audit, Finding
from buttress.data.dataset import Dataset, Split
from buttress.engine.runner import Precision
from buttress.jobs.settings import Reporter
from buttress.tasks import Task


def ask(
    model: nn.Module,
    dataset: Dataset,
    questions: Sequence[Audit],
    *,
    limit: int | None,
    seed: int,
    precision: Precision,
    batch_size: int,
    reporter: Reporter,
    title: str,
    task: Task = tasks.classification,
    folder: Path | None = None,
    training: Split | None = None,
) -> list[Finding]:
    """Put the questions on the test split; progress is told, and each answer as soon as it is there."""
    told = Telling(reporter, title)
    return audit_room.run(
        model,
        dataset.test,
        questions,
        limit=limit,
        classes=dataset.classes,
        task=task,
        seed=seed,
        precision=precision,
        batch_size=batch_size,
        watch=told.watch,
        folder=folder,
        training=training,
        together=True,
        answered=told.answered,
    )


class Telling:
    """Tells a reporter of the audits at work and of their answers.

    Args:
        reporter: receives messages and progress.
        title: of the progress.
    """

    def __init__(self, reporter: Reporter, title: str) -> None:
        self._reporter, self._title = reporter, title
        self._progress = reporter.watch(title)

    def watch(self, what: str, done: float) -> None:
        """What is being done, and the share of it that is."""
        if self._progress is not None:
            self._progress(done, {what: done})

    def answered(self, finding: Finding) -> None:
        """An answer, in a sentence."""
        self._reporter.line(f"{finding.title}: {finding.verdict}")
        self._progress = self._reporter.watch(self._title)  # a line has ended the bar
