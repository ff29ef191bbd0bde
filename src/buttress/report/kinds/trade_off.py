"""Clean against robust accuracy, with what each network's training cost and the front that no other is beyond."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, GREY, SYMBOLS, Trace, figure, fill, pick
from buttress.report.kinds import Section, renderer
from buttress.report.text import escape_label, interval, number, percent, seconds
from buttress.threat import budget_text

_NAMED = 2  # of those that are as good or better, in the table


@renderer("trade-off")
def trade_off(findings: Mapping[str, Finding]) -> Section:
    """One point a network; the larger, the more passes its training took."""
    data = {name: finding.data for name, finding in findings.items()}
    first = next(iter(data.values()))
    robust = f"robust accuracy ({first['norm']}, ε = {budget_text(first['eps'])})"
    layout = {
        "xaxis": {"title": {"text": "clean accuracy"}, "tickformat": "~%"},
        "yaxis": {"title": {"text": escape_label(robust)}, "tickformat": "~%"},
    }
    traces = [_front(data), *(_point(name, row, n, data) for n, (name, row) in enumerate(data.items()))]
    plot = figure(traces, layout, "Clean against robust accuracy", height=440 + 20 * math.ceil(len(data) / 4))
    return Section(fill("trade_off.html", plot=plot, rows=[_cells(name, row) for name, row in data.items()]))


def _front(data: Mapping[str, Mapping[str, Any]]) -> Trace:
    """The line through the networks that no other beats in both accuracies."""
    points = [(row["clean"], row["robust"]) for row in data.values()]
    front = sorted({p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)})
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [p[0] for p in front],
        "y": [p[1] for p in front],
        "name": "front of both accuracies",
        "line": {"color": GREY, "width": 1.5, "dash": "dash", "shape": "hv"},
        "hoverinfo": "skip",
    }


def _point(name: str, row: Mapping[str, Any], index: int, data: Mapping[str, Mapping[str, Any]]) -> Trace:
    most = max((other["passes"] or 0 for other in data.values()), default=0)
    size = 10 + (14 * math.sqrt(row["passes"] / most) if most and row["passes"] else 0)
    line = {"width": 2 if row["front"] else 0, "color": "#111827" if row["front"] else GREY}
    cost = "" if row["passes"] is None else f"<br>{number(row['passes'])} passes per training input"
    hover = f"<b>{escape_label(name)}</b><br>clean {percent(row['clean'])}<br>robust {percent(row['robust'])}{cost}"
    low, high, colour = row["low"], row["high"], pick(COLOURS, index)
    bars = {} if low is None else {"error_y": _bar(row["robust"], low, high, colour)}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [row["clean"]],
        "y": [row["robust"]],
        "name": escape_label(name),
        "marker": {
            "size": size,
            "color": pick(COLOURS, index),
            "symbol": pick(SYMBOLS, index // len(COLOURS)),
            "line": line,
        },
        "hoverinfo": "text",
        "hovertext": [hover],
        **bars,
    }


def _bar(value: float, low: float, high: float, colour: str) -> dict[str, Any]:
    ends = {"array": [high - value], "arrayminus": [value - low]}
    return {"type": "data", "symmetric": False, **ends, "thickness": 1, "width": 3, "color": colour}


def _cells(name: str, row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": name,
        "clean": percent(row["clean"]),
        "robust": percent(row["robust"]),
        "interval": interval(row["low"], row["high"]),
        "passes": number(row["passes"]),
        "relative": "–" if row["relative"] is None else f"{row['relative']:.3g} ×",
        "seconds": seconds(row["seconds"]),
        "front": "on the front" if row["front"] else _behind(row["beaten_by"]),
    }


def _behind(names: Sequence[str]) -> str:
    """Who is as good or better in everything: two by name, and how many more."""
    more = len(names) - _NAMED
    return f"behind {', '.join(names[:_NAMED])}" + (f" and {more} more" if more > 0 else "")
