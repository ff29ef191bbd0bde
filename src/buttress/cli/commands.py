"""The commands that run a job, found without importing one, and the exit statuses they end with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

JOBS = {
    "train": "buttress.jobs.train",
    "audit": "buttress.jobs.audit",
    "harden": "buttress.jobs.harden",
    "compare": "buttress.jobs.compare",
    "attack": "buttress.jobs.attack",
    "export": "buttress.jobs.export",
    "reproduce": "buttress.claims.reproduce",
}
JSON_JOBS = ("audit", "compare")  # those that write findings, and can print them
SHARED = ("train", "audit", "attack", "harden")  # by all processes that torchrun or srun started

DONE = 0
FAULT = 1  # ours
MISTAKE = 2  # the user's
GATE = 3  # robust accuracy is below --fail-under
STOPPED = 128  # plus the signal's number


def job(name: str) -> Callable[..., Any]:
    """The function behind a command, which is named like its module."""
    function: Callable[..., Any] = getattr(importlib.import_module(JOBS[name]), name)
    return function
