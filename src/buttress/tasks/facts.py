"""A task as plain data, and back: what a run's folder keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from buttress import registry
from buttress.errors import UserError
from buttress.tasks.classes import Classification
from buttress.tasks.task import Task


def task_facts(task: Task) -> dict[str, Any]:
    """The entry "task" of a run's facts: name and settings; nothing for classification, which runs do not name."""
    if task == Classification():
        return {}
    settings: dict[str, Any] = {f.name: getattr(task, f.name) for f in fields(task)} if is_dataclass(task) else {}
    return {"task": {"name": registry.task.name_of(task), **settings}}


def task_of(facts: Mapping[str, Any]) -> Task:
    """The task of a run with these facts; classification where they name none.

    Raises:
        UserError: when it cannot be made again.
    """
    if "task" not in facts:
        return Classification()
    try:
        settings = dict(facts["task"])
        return cast(Task, registry.task.get(settings.pop("name"))(**settings))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"the run's task cannot be made again ({error}): give it, as in --task multi-label") from None
