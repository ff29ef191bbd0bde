"""What "wrong", "loss" and "score" mean: for classes, several labels, values, and restored images."""

from typing import Any

from buttress.registry import task as _registry
from buttress.tasks.classes import Classification, Ordinal
from buttress.tasks.facts import task_facts, task_of
from buttress.tasks.images import Denoising
from buttress.tasks.labels import MultiLabel
from buttress.tasks.needs import check_task, require_task
from buttress.tasks.task import Task
from buttress.tasks.values import Regression

__all__ = [
    "Classification",
    "Denoising",
    "MultiLabel",
    "Ordinal",
    "Regression",
    "Task",
    "check_task",
    "classification",
    "names",
    "require_task",
    "task_facts",
    "task_of",
]

classification = Classification()


def names() -> list[str]:
    """The registered tasks."""
    return _registry.names()


def __getattr__(name: str) -> Any:
    return _registry.attribute(__name__, name)
