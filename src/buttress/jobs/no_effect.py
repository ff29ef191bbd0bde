"""Options that would do nothing are refused: who types one believes in it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, Field, fields
from typing import Any

from buttress.errors import UserError


def refuse_without_effect(settings: Any, used: Collection[str], where: str) -> None:
    """Refuse settings that were given and that nothing is going to read.

    Args:
        settings: a group of options, a dataclass; what equals its default was not given.
        used: the names of those that count.
        where: what they would be about, and why they do not count.

    Raises:
        UserError: naming the first.
    """
    for field in fields(settings):
        if field.name not in used and getattr(settings, field.name) != _default(field):
            raise UserError(f"--{field.name.replace('_', '-')} has no effect on {where}: leave it out")


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
