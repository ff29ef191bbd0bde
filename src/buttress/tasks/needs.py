"""Methods that need classes, refused by name where the task has none, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from buttress.errors import UserError
from buttress.tasks.task import Task


def check_task(thing: object, task: Task) -> None:
    """Refuse an attack, a defence, an audit, or one inside of it, that needs classes where ``task`` has none.

    Such a method sets ``needs_classes``; its role says in ``without_classes`` what to use instead. A loss among the
    settings must be one of this task.

    Args:
        thing: a method, or a list of these; anything else needs nothing.
        task: what the output is for.

    Raises:
        UserError: naming the method, the task, and what to use instead.
    """
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
