"""A time that a reader takes in at a glance."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as "40 s", "12 min" or "1.5 h", at least 1 s."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
