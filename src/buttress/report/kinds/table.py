"""Kinds that have no renderer of their own: their data as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Section, renderer

_ROWS = 50  # the rest is in findings.json


@renderer("table")
def table(findings: Mapping[str, Finding]) -> Section:
    """Each network's data below the other's."""
    parts = {name: nested(finding.data) for name, finding in findings.items() if finding.data}
    return Section(fill("table.html", parts=parts, several=len(findings) > 1))


def nested(value: Any) -> str:
    """HTML of plain data: dictionaries and lists of dictionaries as tables, the rest as text."""
    if isinstance(value, Mapping) and value:
        rows = [[_text(str(name)), nested(inner)] for name, inner in value.items()]
        return _rows([], rows)
    if isinstance(value, list | tuple) and value:
        if all(isinstance(row, Mapping) for row in value):
            names = list(dict.fromkeys(str(name) for row in value for name in row))
            cells = [{str(name): inner for name, inner in row.items()} for row in value]
            return _rows(names, [[nested(row.get(name)) for name in names] for row in cells])
        if all(isinstance(row, list | tuple) for row in value):
            return _rows([], [[nested(cell) for cell in row] for row in value])
        rest = f" … ({len(value)} in all)" if len(value) > _ROWS else ""
        return ", ".join(nested(inner) for inner in value[:_ROWS]) + rest
    return _text(value)


def _rows(names: list[str], rows: list[list[str]]) -> str:
    return fill("nested.html", names=names, rows=rows[:_ROWS], more=len(rows) - _ROWS)


def _text(value: Any) -> str:
    from markupsafe import escape

    if value is None or (isinstance(value, Sized) and not len(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(escape(value))
