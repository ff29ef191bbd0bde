"""What a reproduction would run, and what an earlier one took, without running anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from buttress.claims.engine import NO_ENGINE
from buttress.claims.jobs import Job, Result
from buttress.claims.result_files import read_result
from buttress.claims.work import Work, key_of
from buttress.jobs.duration import duration
from buttress.jobs.settings import Reporter


class _PlannedError(Exception):
    """The first jobs are known."""


class _FirstJobs(Work):
    """Keeps the first jobs that an experiment asks for, and ends it there: the next ones depend on their results."""

    def run(self, jobs: Sequence[Job], title: str) -> list[Result]:
        """Say how many these are, and how many are in the folder already."""
        keys = {key_of(job) for job in jobs}
        done = sum(self._stored(key) is not None for key in keys)
        self.reporter.line(f"first {title}: {len(keys)} jobs, {done} of them done before; nothing is run")
        raise _PlannedError


def tell_first_jobs(experiment: Callable[[Work], Any], folder: Path, reporter: Reporter) -> None:
    """Say what ``experiment`` would run first.

    Raises:
        UserError: for settings that it refuses.
    """
    try:
        experiment(_FirstJobs(folder, NO_ENGINE, reporter))
    except _PlannedError:
        return
    reporter.line("nothing is to be run: it reads results of other claims")


def tell_earlier_cost(path: Path, scale: str, seeds: int, workers: int, reporter: Reporter) -> None:
    """Say about how long it takes, by an earlier result of the claim at the same scale.

    Args:
        path: of the result, which need not be there.
        scale: of the reproduction.
        seeds: networks for each row; the time is taken to be in proportion.
        workers: processes.
        reporter: receives the sentence.
    """
    before: Mapping[str, Any] = read_result(path) if path.is_file() else {}
    if before.get("scale") != scale or "job_seconds" not in before:
        reporter.line(f"how long it takes is not known: there is no {path} with a result at scale {scale}")
        return
    spent, of = before["job_seconds"], before["seeds"]
    one_thread = duration(spent * seeds / of)
    share = duration(spent * seeds / of / max(1, workers))
    reporter.line(
        f"about {share} with {max(1, workers)} processes: {one_thread} of one thread for {seeds} seeds, by {path} "
        f"({of} seeds, {duration(spent)})"
    )
