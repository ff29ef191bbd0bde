"""How help is laid out: names in a column, their meanings beside them, lines that fit the terminal."""

from __future__ import annotations

import shutil
import textwrap

_COLUMN = 26


def filled(text: str) -> str:
    """A paragraph in lines that fit."""
    return textwrap.fill(text, _width(), break_on_hyphens=False) + "\n"


def indented(line: str) -> str:
    """A command to type, in lines that a shell reads as one where they are several."""
    parts = textwrap.wrap(line, _width() - 8, break_on_hyphens=False, break_long_words=False)
    return "  " + " \\\n    ".join(parts) + "\n"


def row(head: str, text: str, column: int = _COLUMN) -> str:
    """A name and its meaning; a long name has a line of its own."""
    lines = textwrap.wrap(text, _width() - column - 2, break_on_hyphens=False) or [""]
    first = f"  {head:<{column - 2}}  " if len(head) <= column - 2 else f"  {head}\n{' ' * (column + 2)}"
    return (first + ("\n" + " " * (column + 2)).join(lines)).rstrip() + "\n"


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
