"""Checks of the options that architectures share, each with its one-line error."""

from __future__ import annotations

from buttress.errors import UserError


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
