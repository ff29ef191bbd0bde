"""The commands that run a job, found without importing one."""

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


def job(name: str) -> Callable[..., Any]:
    """The function behind a command, which is named like its module."""
    found: Callable[..., Any] = getattr(importlib.import_module(JOBS[name]), name)
    return found
