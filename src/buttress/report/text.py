"""Numbers and names as people read them."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence


def percent(share: float | None) -> str:
    """A share in [0, 1] as "91.2%"."""
    return "–" if share is None else f"{100 * share:.1f}%"


def points(change: float) -> str:
    """A difference of two shares as "+1.5 points"."""
    text = f"{100 * change:+.1f}".replace("-", "−")
    return ("±0.0" if text[1:] == "0.0" else text) + " points"


def points_between(difference: Mapping[str, float]) -> str:
    """A ``difference`` of two shares with its interval from ``low`` to ``high``: "+1.5 points (−0.5 to +3.5)"."""
    low, high = (points(difference[end]).removesuffix(" points") for end in ("low", "high"))
    return f"{points(difference['difference'])} ({low} to {high})"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares as "88.7–93.1%"."""
    return "" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}%"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, whole ones and large ones without a fraction."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:#.{digits}g}".rstrip(".").replace("-", "−") if value else "0"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{number(value / size)} {unit}"
    return f"{number(value * 1e6)} µs"


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few of many names: "a, b, c and 2 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "none"


def escape_label(text: str) -> str:
    """A text for a figure, whose labels know some tags: these lose their meaning."""
    return html.escape(str(text), quote=False)
