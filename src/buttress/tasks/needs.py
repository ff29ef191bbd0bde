"""Methods that need classes, refused by name where the task has none, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from buttress import registry
from buttress.errors import UserError
from buttress.tasks.task import Task


def require_task(task: object) -> None:
    """Refuse what is no task, such as a task's name or its class.

    Raises:
        UserError: saying what came, and what to type where that is known.
    """
    if isinstance(task, Task):
        return
    hint = ""
    if isinstance(task, type) and issubclass(task, Task):
        hint = f": use {_written(task)}"
    elif isinstance(task, str):
        known = registry.task.names()
        hint = f": use {_written(registry.task.get(task))}" if task in known else f"; {registry.nearest(task, known)}"
    shown = task.__name__ if isinstance(task, type) else repr(task)
    raise UserError(f"task must be a task, such as tasks.MultiLabel(); got {shown}{hint}")


def _written(kind: type[Task]) -> str:
    """A task of this class, as one types it; a user's own without a package."""
    return f"{'tasks.' if kind.__module__.startswith(__package__) else ''}{kind.__name__}()"


def check_task(thing: object, task: Task) -> None:
    """Refuse an attack, a defence, an audit, or one inside of it, that needs classes where ``task`` has none.

    Such a method sets ``needs_classes``; its role says in ``without_classes`` what to use instead. A loss among the
    settings must be one of this task.

    Args:
        thing: a method, or a list of these; anything else needs nothing.
        task: what the output is for.

    Raises:
        UserError: naming the method, the task, and what to use instead; and for what is no task.
    """
    require_task(task)
    if task.classes:
        return
    if isinstance(thing, list | tuple):
        for part in thing:
            check_task(part, task)
    elif hasattr(thing, "needs_classes"):
        method: Any = thing
        if method.needs_classes:
            needed = f"{method.label()} needs classes, which {task.label()} has not"
            raise UserError(f"{needed}: use {method.without_classes}")
        for name, value in _settings(method).items():
            if name == "loss" and isinstance(value, str):
                _check_loss(method, value, task)
            check_task(value, task)


def _check_loss(method: Any, loss: str, task: Task) -> None:
    try:
        task.resolve(loss)
    except UserError as reason:
        raise UserError(f"{method.label()}: {reason}") from None


def _settings(method: Any) -> Mapping[str, Any]:
    if hasattr(method, "settings"):
        settings: Mapping[str, Any] = method.settings()
        return settings
    if is_dataclass(method):
        return {f.name: value for f in fields(method) if not isinstance(value := getattr(method, f.name), Tensor)}
    return {}
