"""Checks of the options that architectures share, each with its one-line error."""

from __future__ import annotations

import math
from collections.abc import Collection

from buttress.errors import UserError
from buttress.registry import nearest


def whole(name: str, value: object, at_least: int) -> int:
    """The option's value, when it is a whole number of at least ``at_least``.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{name} must be a whole number of at least {at_least}, not {value!r}")
    return value


def probability(name: str, value: object) -> float:
    """The option's value, when it is a number in [0, 1): a rate of dropout.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise UserError(f"{name} must be a number in [0, 1), not {value!r}")
    return float(value)


def one_of(kind: str, value: object, known: Collection[str]) -> str:
    """The option's value, when it is one of the names that are known.

    Raises:
        UserError: for anything else, with the nearest of them.
    """
    if not isinstance(value, str) or value not in known:
        raise UserError(f"there is no {kind} {value!r}; {nearest(str(value), list(known))}")
    return value


def switch(name: str, value: object) -> bool:
    """The option's value, when it is True or False.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False, not {value!r}")
    return value


def number(name: str, value: object, at_least: float = -math.inf) -> float:
    """The option's value, when it is a finite number of at least ``at_least``.

    Raises:
        UserError: for anything else.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not at_least <= value
        or not math.isfinite(value)
    ):
        bound = "" if at_least == -math.inf else f" of {at_least:g} or more"
        raise UserError(f"{name} must be a finite number{bound}, not {value!r}")
    return float(value)


def positive(name: str, value: object) -> float:
    """The option's value, when it is a finite number above 0.

    Raises:
        UserError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"{name} must be a finite number above 0, not {value!r}")
    return float(value)
