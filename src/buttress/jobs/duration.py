"""A time that a reader takes in at a glance, and one as a user types it."""

from __future__ import annotations

import math
import re

from buttress.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_TYPED = re.compile(r"(\d+\.?\d*|\.\d+)\s*([a-z]+)")


def duration(seconds: float) -> str:
    """Seconds as "40 s", "12 min" or "1.5 h", at least 1 s."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def seconds_of(option: str, text: str) -> float:
    """Seconds of "90s", "10m" or "1.5h", or of several after one another, such as "1h30m".

    Args:
        option: what it is given for, as typed.
        text: what was typed.

    Raises:
        UserError: for anything else, a number without a unit and a time of 0 among it.
    """
    plain = text.strip().lower()
    parts = _TYPED.findall(plain)
    known = bool(parts) and not _TYPED.sub("", plain).strip() and all(unit in _UNITS for _, unit in parts)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts) if known else 0.0
    if not 0 < total < math.inf:
        raise UserError(f"{option} takes a time such as 90s, 10m or 1.5h; got {text!r}")
    return total
