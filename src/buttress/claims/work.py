"""A folder of results of jobs, to which only what is missing is added, so that what was interrupted goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from buttress.claims.engine import Engine
from buttress.claims.jobs import Job, Result
from buttress.jobs.settings import Reporter
from buttress.safe_files import write_text


def key_of(job: Job) -> str:
    """A digest of a job's settings, different for different jobs."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:24]


class Work:
    """A folder of results, and what adds to it.

    Args:
        folder: one JSON file for each finished job, written by this process alone, wherever the job ran.
        engine: runs the jobs.
        reporter: receives messages and progress.
    """

    def __init__(self, folder: Path, engine: Engine, reporter: Reporter) -> None:
        self.folder, self.engine, self.reporter = folder, engine, reporter
        self.seconds = 0.0  # of all jobs, those done before included
        self.devices: set[str] = set()  # that they ran on

    def run(self, jobs: Sequence[Job], title: str) -> list[Result]:
        """The results of ``jobs``, in their order; those in the folder already are not run again."""
        keys = [key_of(job) for job in jobs]
        results = {key: result for key in keys if (result := self._stored(key)) is not None}
        missing = {key: job for key, job in zip(keys, jobs, strict=True) if key not in results}
        self.reporter.line(f"{title}: {len(set(keys))} jobs, {len(results)} of them done before")
        progress = self.reporter.watch(title)
        for key, result in self.engine.results(missing):
            write_text(self.folder / f"{key}.json", json.dumps({"job": missing[key], "result": result}))
            results[key] = result
            if progress is not None:
                progress(len(results) / len(set(keys)), {})
        self.seconds += sum(sum(results[key]["seconds"].values()) for key in set(keys))
        self.devices |= {results[key].get("device", "not recorded") for key in keys}  # by earlier versions it was not
        return [results[key] for key in keys]

    def _stored(self, key: str) -> Result | None:
        try:
            result: Result = json.loads((self.folder / f"{key}.json").read_text())["result"]
        except (OSError, ValueError, KeyError):
            return None
        return result
