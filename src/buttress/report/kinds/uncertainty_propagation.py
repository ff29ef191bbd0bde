"""Uncertain outputs: what the Jacobian foretells against what sampling shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, GREY, SYMBOLS, Trace, figure, fill, pick
from buttress.report.kinds import Section, renderer, share_key
from buttress.report.text import escape_label, number, percent

Data = Mapping[str, Any]


@renderer("uncertainty-propagation")
def uncertainty_propagation(findings: Mapping[str, Finding]) -> Section:
    """Two figures of all networks together, and a row for each."""
    known = {name: finding.data for name, finding in findings.items() if finding.data.get("rows")}
    if not known:
        return Section("")
    rows = [[name, *_cells(data)] for name, data in known.items()]
    plots = [_deviations(known), _errors(known)]
    html = fill("uncertainty_propagation.html", plots=plots, rows=rows, several=len(findings) > 1)
    shares = {name: data["noisy_accuracy"] for name, data in known.items() if data.get("noisy_accuracy") is not None}
    return Section(html, (share_key("Correct with noise", shares, "normal noise on the inputs"),) if shares else ())


def _cells(data: Data) -> list[str]:
    errors = data.get("errors") or {}
    ends = [None if errors.get(name) is None else 1 - errors[name] for name in ("union", "predicted")]
    return [
        percent(data.get("accuracy")),
        percent(data.get("noisy_accuracy")),
        f"{percent(ends[0])} to {percent(ends[1])}",
        percent(data.get("covariance_error")),
        percent(data.get("sampling_error")),
        number(data.get("shift")),
        number(data.get("correlation")),
    ]


def _deviations(known: Mapping[str, Data]) -> str:
    """A point for each input and output; those that do not move at all have no place on a log axis."""
    points = {}
    for name, data in known.items():
        pairs = [
            pair
            for row in data["rows"]
            for pair in zip(row["predicted_std"], row["measured_std"], strict=True)
            if min(pair) > 0
        ]
        points[name] = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    every = [value for x, y in points.values() for value in (*x, *y)] or [0.1, 1.0]
    layout = {
        "xaxis": {"title": {"text": "foretold standard deviation"}, "type": "log", "exponentformat": "power"},
        "yaxis": {"title": {"text": "measured"}, "type": "log", "exponentformat": "power"},
    }
    traces = [_diagonal(min(every), max(every)), *_clouds(points, 4)]
    return figure(traces, layout, "Standard deviation of each output: foretold and measured", height=360)


def _errors(known: Mapping[str, Data]) -> str:
    """A point for each input."""
    points = {
        name: ([row["predicted_error"] for row in data["rows"]], [row["measured_error"] for row in data["rows"]])
        for name, data in known.items()
    }
    layout = {
        "xaxis": {"title": {"text": "foretold probability of an error"}, "range": [-0.02, 1.02]},
        "yaxis": {"title": {"text": "measured"}, "range": [-0.02, 1.02]},
    }
    traces = [_diagonal(0.0, 1.0), *_clouds(points, 7)]
    return figure(traces, layout, "Probability of an error of each input: foretold and measured", height=360)


def _clouds(points: Mapping[str, tuple[list[float], list[float]]], size: int) -> list[Trace]:
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": x,
            "y": y,
            "name": escape_label(name),
            "marker": {"color": pick(COLOURS, i), "symbol": pick(SYMBOLS, i), "size": size, "opacity": 0.6},
            "showlegend": len(points) > 1,
        }
        for i, (name, (x, y)) in enumerate(points.items())
    ]


def _diagonal(low: float, high: float) -> Trace:
    line = {"color": GREY, "width": 1.5}
    ends = [low, high]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": ends,
        "y": ends,
        "line": line,
        "hoverinfo": "skip",
        "showlegend": False,
    }
