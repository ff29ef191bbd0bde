"""Activations by channel: a table of classes per network, and the chosen classes' curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, DASHES, Trace, figure, fill
from buttress.report.kinds import Key, Section, renderer
from buttress.report.text import escape_label, interval, number, percent

_COLUMNS = (
    *("Class", "Inputs", "Clean", "Under attack", "Interval", "Against it, clean", "Against it, attacked"),
    *("Correlation, clean", "Correlation, attacked", "L1", "Cosine", "Active, for", "Active, against"),
)
_NOTE = (
    "Against it: the share of the activation in channels whose weight for the class is below 0. Correlation: "
    "Pearson's, of activations with weights. L1, Cosine: distances of clean and attacked activations. Active: how "
    "often channels that speak for and against the class exceed 1 % of the layer's largest value, clean and attacked."
)


@renderer("channels")
def channels(findings: Mapping[str, Finding]) -> Section:
    """Curves sorted by clean activation, then the table; the least robust class is marked."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("classes")}
    several = len(findings) > 1
    plots = "".join(_curves(name, curve, several) for name, d in data.items() for curve in d.get("curves", []))
    rows = fill("rows.html", parts={name: [_table(entry)] for name, entry in data.items()}, several=several)
    shares = {name: entry.get("mean", {}).get("negative_attacked") for name, entry in data.items()}
    texts = {name: percent(share) for name, share in shares.items() if share is not None}
    note = "of the activation under attack, mean over classes"
    return Section(plots + rows, (Key("In channels against the class", texts, {}, note),) if texts else ())


def _curves(network: str, curve: Mapping[str, Any], several: bool) -> str:
    against = [value < 0 for value in curve.get("relevance", [])]
    traces: list[Trace] = []
    for n, (kind, label) in enumerate((("clean", "clean"), ("attacked", "under attack"))):
        values = curve.get(kind, [])
        line: Trace = {
            "type": "scatter",
            "mode": "lines",
            "x": list(range(1, len(values) + 1)),
            "y": values,
            "name": label,
            "line": {"color": COLOURS[n], "dash": DASHES[0]},
        }
        traces.append(line)
    places = [n for n, negative in enumerate(against) if negative]
    attacked = curve.get("attacked", [])
    marks: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [n + 1 for n in places],
        "y": [attacked[n] for n in places],
        "name": "under attack, against the class",
        "marker": {"color": COLOURS[4], "size": 5},
    }
    title = f"{network} · {curve['class']}" if several else str(curve["class"])
    layout = {
        "title": {"text": escape_label(title)},
        "xaxis": {"title": {"text": "channels, by clean activation"}},
        "yaxis": {"title": {"text": "mean activation"}},
    }
    return figure([*traces, marks], layout, f"Activations of channels on inputs of {title}", height=300)


def _table(data: Mapping[str, Any]) -> dict[str, Any]:
    worst = min(row["accuracy"] for row in data["classes"])
    rows = [
        {
            "marked": row["accuracy"] == worst,
            "cells": [
                row["class"],
                number(row.get("inputs")),
                percent(row.get("clean")),
                percent(row["accuracy"]),
                interval(row.get("low"), row.get("high")),
                percent(row.get("negative_clean")),
                percent(row.get("negative_attacked")),
                number(row.get("pearson_clean")),
                number(row.get("pearson_attacked")),
                number(row.get("l1")),
                number(row.get("cosine")),
                *(_both(row, f"active_{sign}") for sign in ("positive", "negative")),
            ],
        }
        for row in data["classes"]
    ]
    return {"names": _COLUMNS, "rows": rows, "note": _NOTE}


def _both(row: Mapping[str, Any], name: str) -> str:
    return f"{percent(row.get(f'{name}_clean'))}, {percent(row.get(f'{name}_attacked'))}"
