"""What runs the jobs of a reproduction, wherever that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from buttress.claims.jobs import Job, Result


@dataclass(frozen=True)
class Engine:
    """What runs jobs.

    Attributes:
        results: of jobs by key, each as it comes, in any order; raises a `UserError` for what is wrong with a job, and
            a `ProcessLostError` where no more of them will come.
        at_once: how many jobs run at a time.
    """

    results: Callable[[Mapping[str, Job]], Iterator[tuple[str, Result]]]
    at_once: int


def _none(jobs: Mapping[str, Job]) -> Iterator[tuple[str, Result]]:
    raise AssertionError(f"{len(jobs)} jobs were to be run where none is")


NO_ENGINE = Engine(_none, 0)  # for those who only read results, or plan
