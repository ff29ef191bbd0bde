"""End times: loss, accuracy and the posterior's density against T, and one row per network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, DASHES, Trace, figure, fill, line_name
from buttress.report.kinds import Section, renderer
from buttress.report.text import number, percent

Data = Mapping[str, Any]

_LINES = {"nll": "loss", "accuracy": "accuracy", "density": "density of the posterior"}
_COLUMNS = ("Network", "Inputs", "Mean of the posterior", "Spread over inputs", "Least loss at", "Interval")
_FIGURES = ("Loss there", "Loss near the mean", "Accuracy there")
_NOTE = (
    "Loss: mean negative log-likelihood, in nats, of the same weights when the end time is fixed. Interval: of the "
    "time of the least loss, 95 %, by bootstrap over inputs."
)


@renderer("end-time")
def end_time(findings: Mapping[str, Finding]) -> Section:
    """One figure per network and a table of all."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("times")}
    several = len(findings) > 1
    plots = "".join(_curves(name, entry, several) for name, entry in data.items())
    table = {
        "names": [*_COLUMNS, *_FIGURES],
        "rows": [_row(name, entry) for name, entry in data.items()],
        "note": _NOTE,
    }
    return Section(plots + fill("rows.html", parts={"": [table]}, several=False) if data else "")


def _row(name: str, data: Data) -> dict[str, Any]:
    at = data["times"].index(data["best"])
    between = "–".join(number(data.get(key)) for key in ("best_low", "best_high"))
    cells = [name, number(data.get("inputs")), number(data["mean"]), number(data.get("spread")), number(data["best"])]
    cells += [between, number(data.get("best_nll")), number(data.get("nll_at_mean")), percent(data["accuracy"][at])]
    return {"marked": False, "cells": cells}


def _curves(network: str, data: Data, several: bool) -> str:
    """All from 0 on, so that they share an axis: nats, shares and 1 / time."""
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": data["times"],
            "y": data[key],
            "name": line_name(network, label, several),
            "line": {"color": COLOURS[n], "dash": DASHES[n]},
        }
        for n, (key, label) in enumerate(_LINES.items())
        if data.get(key)
    ]
    for n, (label, at) in enumerate({"mean of the posterior": data["mean"], "least loss": data["best"]}.items()):
        top = max(max(data[key]) for key in _LINES if data.get(key))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [at, at],
                "y": [0, top],
                "name": label,
                "line": {"color": COLOURS[3 + n], "dash": "dot", "width": 1},
            }
        )
    layout = {"xaxis": {"title": {"text": "end time T"}}, "yaxis": {"title": {"text": "nats, share, 1 / time"}}}
    title = f" of {network}" if several else ""
    return figure(traces, layout, f"Loss, accuracy and posterior{title} against the end time", height=320)
