"""Robust accuracy against an attacker who knows the network: each attack, the worst case, ablations, a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, SYMBOLS, Trace, figure, fill, pick
from buttress.report.kinds import Section, renderer, share_key
from buttress.report.text import escape_label, interval, number, percent, seconds
from buttress.threat import budget_text


@renderer("adaptive")
def adaptive(findings: Mapping[str, Finding]) -> Section:
    """Networks below each other, each with a table of its attacks; one figure for all."""
    data = {name: finding.data for name, finding in findings.items() if finding.data}
    parts = {name: _part(entry) for name, entry in data.items()}
    html = fill("adaptive.html", parts=parts, several=len(data) > 1, curve=_curve(data))
    keys = []
    for key, label in (("worst", "Worst case of adaptive attacks"), ("reference", "The usual attack alone")):
        shares = {name: entry[key]["accuracy"] for name, entry in data.items() if entry.get(key)}
        if shares:
            keys.append(share_key(label, shares, "inputs classified correctly before and after the attack"))
    return Section(html if parts else "", tuple(keys))


def _part(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rows": [_row(row) for row in data.get("rows", [])],
        "worst": _share(data.get("worst")),
        "ablations": [
            [row["label"], *_share(row.get("clean")), *_share(row.get("reference"))] for row in _ablations(data)
        ],
        "not_run": [(row["label"], row["reason"]) for row in data.get("not_run", [])],
        "facts": _facts(data),
        "reference": data.get("attack", "the usual attack"),
        "cascade": data.get("cascade", False),
    }


def _ablations(data: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The network itself, and its ablations, where it offers such."""
    rows: Sequence[Mapping[str, Any]] = data.get("ablations", [])
    itself = {"label": "the network itself", "clean": data.get("clean"), "reference": data.get("reference")}
    return [itself, *rows] if rows else []


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = [row.get("kind", ""), *_share(row.get("standing"))]
    cells += [number(row.get(name)) for name in ("inputs", "beaten", "missed", "alone", "forwards", "backwards")]
    return {"label": row["label"], "cells": [*cells, seconds(row.get("seconds"))], "marked": row.get("missed", 0) > 0}


def _share(result: Mapping[str, Any] | None) -> tuple[str, str]:
    """A share and its interval, as text."""
    if result is None:
        return "–", ""
    return percent(result["accuracy"]), interval(result.get("low"), result.get("high"))


def _facts(data: Mapping[str, Any]) -> str:
    facts = [f"{data['norm']} ε = {budget_text(data['eps'])}"] if "eps" in data else []
    facts += [f"{data['inputs']:,} inputs"] if "inputs" in data else []
    facts += [f"seed {data['seed']}"] if "seed" in data else []
    total = data.get("total") or {}
    if "forwards" in total:
        passes = f"{number(total['forwards'])} forward and {number(total['backwards'])} backward passes"
        facts += [f"all attacks together {passes} an input"]
    facts += ["the network draws at random: judged by the mean of fresh passes"] if data.get("random") else []
    return ", ".join(facts)


def _curve(data: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracy over budgets, and the worst case at the one in question."""
    traces: list[Trace] = []
    label = ""
    for i, (name, entry) in enumerate(data.items()):
        points = entry.get("curve") or []
        if not points:
            continue
        label = entry.get("curve_label", "")
        colour = pick(COLOURS, i)
        curve: Trace = {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [point["eps"] for point in points],
            "y": [point["accuracy"] for point in points],
            "name": escape_label(name),
            "line": {"color": colour},
            "marker": {"symbol": pick(SYMBOLS, i), "size": 6},
        }
        worst: Trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [entry.get("eps")],
            "y": [(entry.get("worst") or {}).get("accuracy")],
            "name": escape_label(f"{name}, worst case"),
            "marker": {"symbol": "x", "size": 11, "color": colour},
        }
        traces += [curve, worst]
    layout = {
        "xaxis": {"title": {"text": "budget ε"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "accuracy"}, "tickformat": ".0%", "range": [0, 1]},
        "showlegend": True,
    }
    return figure(traces, layout, f"Accuracy over budgets under {label}", height=340) if traces else ""
