"""Names that are nearly spelled like one that is not known, for the ends of error lines."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_LISTED = 40  # names in one line


def close_names(name: str, known: Sequence[str], most: int = 1) -> list[str]:
    """Those that are nearly spelled so, in letters of either case, the nearest first."""
    exact = difflib.get_close_matches(name, known, n=len(known) or 1, cutoff=0)
    spelled = {one.casefold(): one for one in reversed(exact)}  # of those that differ in case alone the nearest
    return [spelled[one] for one in difflib.get_close_matches(name.casefold(), spelled, n=most, cutoff=0.5)]


def nearest(name: object, known: list[str]) -> str:
    """The end of an error line: the nearest known name, or all of them, or the first where there are very many."""
    close = close_names(str(name), known)
    more = f" and {len(known) - _LISTED} more" if len(known) > 1.5 * _LISTED else ""
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:_LISTED] if more else known)}{more}"
