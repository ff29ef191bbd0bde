"""Calibration: reliability diagrams, scores by condition, and how well strange inputs are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, GREY, SYMBOLS, Trace, figure, fill, pick
from buttress.report.kinds import Key, Section, renderer
from buttress.report.text import escape_label, interval, number, percent

Data = Mapping[str, Any]

_AREAS = {"confidence": "confidence", "entropy": "entropy", "mutual_information": "mutual information"}
_OFFERED = {
    "mutual_information": "Mutual information",
    "end_time_mean": "End time",
    "end_time_std": "Its deviation",
}


@renderer("calibration")
def calibration(findings: Mapping[str, Finding]) -> Section:
    """A line per network against the diagonal, the likelihood and calibration against eps, and tables."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("clean")}
    if not data:
        return Section("")
    html = fill(
        "calibration.html",
        reliability=_reliability(data),
        budgets=[plot for what in ("nll", "ece") if (plot := _budgets(data, what))],
        parts={name: [table for table in (_scores(entry), _outside(entry)) if table] for name, entry in data.items()},
        several=len(findings) > 1,
    )
    keys = [
        Key("Calibration error", {name: percent(entry["clean"]["ece"]) for name, entry in data.items()}, {}, "ECE"),
        Key(
            "Negative log-likelihood", {name: number(entry["clean"]["nll"]) for name, entry in data.items()}, {}, "nats"
        ),
    ]
    return Section(html, tuple(keys))


def _reliability(data: Mapping[str, Data]) -> str:
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "name": "calibrated",
            "line": {"color": GREY, "dash": "dot"},
        }
    ]
    for n, (network, entry) in enumerate(data.items()):
        bins = [row for row in entry.get("reliability", []) if row["inputs"]]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [row["confidence"] for row in bins],
                "y": [row["accuracy"] for row in bins],
                "text": [f"{row['inputs']} inputs" for row in bins],
                "name": escape_label(network),
                "line": {"color": pick(COLOURS, n)},
                "marker": {"symbol": pick(SYMBOLS, n)},
            }
        )
    layout = {
        "xaxis": {"title": {"text": "mean confidence in the bin"}, "range": [0, 1]},
        "yaxis": {"title": {"text": "accuracy in the bin"}, "range": [0, 1]},
    }
    return figure(traces, layout, "Accuracy against confidence")


def _budgets(data: Mapping[str, Data], what: str) -> str:
    """A figure against eps, from 0 on; empty where no network was attacked."""
    traces: list[Trace] = []
    for n, (network, entry) in enumerate(data.items()):
        rows = [row for row in entry.get("conditions", []) if row.get("kind") == "attack"]
        if rows:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": [0, *(row["eps"] for row in rows)],
                    "y": [entry["clean"][what], *(row[what] for row in rows)],
                    "name": escape_label(network),
                    "line": {"color": pick(COLOURS, n)},
                    "marker": {"symbol": pick(SYMBOLS, n)},
                }
            )
    title = {"nll": "negative log-likelihood, nats", "ece": "expected calibration error"}[what]
    layout = {"xaxis": {"title": {"text": "eps of the attack"}}, "yaxis": {"title": {"text": title}}}
    return figure(traces, layout, f"{title} under attack", height=320) if traces else ""


def _extra(row: Data) -> dict[str, str]:
    return {key: name for key, name in _OFFERED.items() if key in row}


def _scores(data: Data) -> dict[str, Any]:
    extra = _extra(data["clean"])
    names = ["Condition", "Error", "Interval", "NLL", "Interval", "Brier", "ECE", "Confidence", "Entropy"]
    rows = []
    for row in ({"label": "as they are", **data["clean"]}, *data.get("conditions", [])):
        cells = [row["label"], percent(row["error"]), interval(row.get("error_low"), row.get("error_high"))]
        likelihood = [number(row.get(key)) for key in ("nll_low", "nll_high")]
        cells += [number(row["nll"]), "–".join(likelihood), number(row.get("brier")), percent(row["ece"])]
        cells += [percent(row.get("confidence")), number(row.get("entropy")), *(number(row.get(key)) for key in extra)]
        rows.append({"marked": False, "cells": cells})
    return {"names": [*names, *extra.values()], "rows": rows, "note": ""}


def _outside(data: Data) -> dict[str, Any] | None:
    sources = data.get("outside") or []
    if not sources:
        return None
    areas = {key: name for key, name in _AREAS.items() if f"{key}_auroc" in sources[0]}
    extra = _extra(sources[0])
    rows = [
        {
            "marked": row.get("confidence_auroc", 1.0) < 0.5,
            "cells": [
                row["name"],
                number(row.get("inputs")),
                *(number(row.get(f"{key}_auroc")) for key in areas),
                percent(row.get("confidence")),
                number(row.get("entropy")),
                *(number(row.get(key)) for key in extra),
            ],
        }
        for row in sources
    ]
    names = ["Strange inputs", "Inputs", *(f"AUROC, {name}" for name in areas.values()), "Confidence", "Entropy"]
    note = "AUROC: how well they are told from the inputs by that score; 0.5 is chance, and below it they seem surer."
    return {"names": [*names, *extra.values()], "rows": rows, "note": note}
