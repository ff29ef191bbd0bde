"""Checks of settings, each with its one-line error: the setting's name, what it must be, and what came.

They return the value, so that a constructor checks and keeps it in one line. A setting that may be ``None`` is checked
where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from buttress.errors import UserError

_FINITE = "(-inf, inf)"


def integer(name: str, value: object) -> int:
    """The value, when it is a whole number of either sign.

    Raises:
        UserError: for anything else, True and False included.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name} must be a whole number; got {value!r}")
    return value


def whole(name: str, value: object, at_least: int = 1, at_most: int | None = None) -> int:
    """The value, when it is a whole number of ``at_least`` or more, and of ``at_most`` or less where that is given.

    Raises:
        UserError: for anything else, True and False included.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < at_least
        or (at_most is not None and value > at_most)
    ):
        interval = f"of {at_least} or more" if at_most is None else f"from {at_least} to {at_most}"
        raise UserError(f"{name} must be a whole number {interval}; got {value!r}")
    return value


def number(name: str, value: object, interval: str = _FINITE) -> float:
    """The value, when it is a number in the interval.

    Args:
        name: of the setting.
        value: the setting's.
        interval: written as in mathematics, a round bracket for an end that does not belong to it: "[0, 1)".

    Raises:
        UserError: for anything else, True, False and NaN included.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not low <= value <= high
        or (value == low and interval[0] == "(")
        or (value == high and interval[-1] == ")")
    ):
        raise UserError(f"{name} must be {_description(interval, low, high)}; got {value!r}")
    return float(value)


def _description(interval: str, low: float, high: float) -> str:
    if high < math.inf:
        return f"a number in {interval}"
    finite = "a finite number" if interval[-1] == ")" else "a number"
    if low == -math.inf:
        return finite
    return f"{finite} above {low:g}" if interval[0] == "(" else f"{finite} of {low:g} or more"


def positive(name: str, value: object) -> float:
    """The value, when it is a finite number above 0.

    Raises:
        UserError: for anything else.
    """
    return number(name, value, "(0, inf)")


def not_negative(name: str, value: object) -> float:
    """The value, when it is a finite number of 0 or more.

    Raises:
        UserError: for anything else.
    """
    return number(name, value, "[0, inf)")


def share(name: str, value: object) -> float:
    """The value, when it is a number from 0 to 1, both included.

    Raises:
        UserError: for anything else.
    """
    return number(name, value, "[0, 1]")


def switch(name: str, value: object) -> bool:
    """The value, when it is True or False.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False; got {value!r}")
    return value


def one_of(name: str, value: object, choices: Collection[str]) -> str:
    """The value, when it is one of the choices.

    Raises:
        UserError: for anything else, naming them.
    """
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    return value


def one_name(setting: str, value: object) -> str:
    """The value, when it is a name.

    Raises:
        UserError: for anything else, empty texts included.
    """
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{setting} must be a name; got {value!r}")
    return value


def name_list(setting: str, value: object) -> tuple[str, ...]:
    """The names in the value, which is one name or a list of names, each once.

    Raises:
        UserError: for anything else, empty texts included.
    """
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not all(isinstance(each, str) for each in several):
        raise UserError(f"{setting} must be a name or a list of names; got {value!r}")
    if not all(each.strip() for each in several):
        raise UserError(f"{setting} must be a name or a list of names; got an empty name: {value!r}")
    for each in several:
        if several.count(each) > 1:
            raise UserError(f"{setting} must be names, each once; got {each!r} {several.count(each)} times")
    return tuple(several)
