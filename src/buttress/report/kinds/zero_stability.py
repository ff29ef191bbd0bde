"""Multistep blocks: where they lie in the region of zero stability, their roots, and how far differences grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.models.blocks.multistep import parasitic_modulus, three_step
from buttress.report.figures import COLOURS, DASHES, GREY, SYMBOLS, Trace, figure, fill, line_name, pick, rgba
from buttress.report.kinds import Key, Section, renderer
from buttress.report.text import escape_label, number

_COLUMNS = ("Block", "a0", "a1", "a2", "b0", "k", "Order", "Parasitic modulus", "Zero-stable")
_SPAN = 6.0  # of k, at least
_POINTS = 241  # of the curve over k
_NOTE = (
    "A block steps to a0 y(n) + a1 y(n−1) + a2 y(n−2) + b0 f(y(n)); k is told for three-step methods of second order. "
    "Blocks at the start have no earlier states yet and are ordinary residual blocks."
)


@renderer("zero-stability")
def zero_stability(findings: Mapping[str, Finding]) -> Section:
    """Figures of all networks together, then a table of blocks per network."""
    known = {name: finding.data for name, finding in findings.items() if finding.data.get("blocks")}
    several = len(findings) > 1
    if not known:
        return Section("")
    plots = [plot for plot in (_region(known), _circle(known), _states(known, several)) if plot]
    parts = {name: [_table(data["blocks"])] for name, data in known.items()}
    moduli = {name: number(data.get("modulus")) for name, data in known.items()}
    key = Key("Largest parasitic modulus", moduli, {}, "below 1, differences die away")
    html = fill("zero_stability.html", plots=plots) + fill("rows.html", parts=parts, several=several)
    return Section(html, (key,))


def _stepping(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in data["blocks"] if not row.get("start")]


def _region(known: Mapping[str, Mapping[str, Any]]) -> str:
    """The largest parasitic modulus over k, with the blocks of each network; nothing where no block has a k."""
    marked: dict[str, list[Mapping[str, Any]]] = {}
    for name, data in known.items():
        rows = [row for row in _stepping(data) if row.get("k") is not None]
        if rows:
            marked[name] = rows
    if not marked:
        return ""
    span = max(_SPAN, *(1.2 * abs(row["k"]) for rows in marked.values() for row in rows))
    traces = _curve(span)
    for i, (name, rows) in enumerate(marked.items()):
        trace: Trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [row["k"] for row in rows],
            "y": [row["modulus"] for row in rows],
            "text": [escape_label(row["block"]) for row in rows],
            "hoverinfo": "x+y+text",
            "name": escape_label(name),
            "marker": {"color": pick(COLOURS, i), "symbol": pick(SYMBOLS, i), "size": 9},
        }
        traces.append(trace)
    band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "layer": "below", "line": {"width": 0}}
    stable = [{**band, "x0": low, "x1": high, "fillcolor": rgba(COLOURS[2], 0.12)} for low, high in _bands(span)]
    layout = {
        "xaxis": {"title": {"text": "k"}, "range": [-span, span], "zeroline": False},
        "yaxis": {"title": {"text": "largest parasitic modulus"}, "range": [0, 2.5]},
        "shapes": stable,
    }
    return figure(traces, layout, "Region of zero stability: k of at most −1, or above 1/3", height=320)


def _bands(span: float) -> list[tuple[float, float]]:
    return [(-span, -1.0), (1 / 3, span)]


def _curve(span: float) -> list[Trace]:
    """The modulus over k, on either side of the pole at 0."""
    traces: list[Trace] = []
    for sign in (-1, 1):
        # Evenly in the logarithm: the curve is steep near 0 and flat far from it.
        sizes = [0.02 * (span / 0.02) ** (i / (_POINTS - 1)) for i in range(_POINTS)]
        x = sorted([*(sign * size for size in sizes), *([-9 / 5, -1.0] if sign < 0 else [1 / 3])])
        line: Trace = {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": [parasitic_modulus(three_step(k)[:3]) for k in x],
            "hoverinfo": "x+y",
            "showlegend": False,
            "line": {"color": GREY, "width": 1.5},
        }
        traces.append(line)
    return traces


def _circle(known: Mapping[str, Mapping[str, Any]]) -> str:
    """The roots of the blocks in the complex plane, and the unit circle."""
    angles = [2 * math.pi * i / 180 for i in range(181)]
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [math.cos(angle) for angle in angles],
            "y": [math.sin(angle) for angle in angles],
            "hoverinfo": "skip",
            "showlegend": False,
            "line": {"color": GREY, "width": 1.5},
        }
    ]
    for i, (name, data) in enumerate(known.items()):
        roots = [(row["block"], root) for row in _stepping(data) for root in row["roots"]]
        trace: Trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [root[0] for _, root in roots],
            "y": [root[1] for _, root in roots],
            "text": [escape_label(block) for block, _ in roots],
            "hoverinfo": "x+y+text",
            "name": escape_label(name),
            "marker": {"color": pick(COLOURS, i), "symbol": pick(SYMBOLS, i), "size": 8, "opacity": 0.75},
        }
        traces.append(trace)
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "real part"}, "constrain": "domain"},
        "yaxis": {"title": {"text": "imaginary part"}, "constrain": "domain", "scaleanchor": "x"},
        "showlegend": len(known) > 1,
    }
    return figure(traces, layout, "Characteristic roots and the unit circle", height=360)


def _states(known: Mapping[str, Mapping[str, Any]], several: bool) -> str:
    """Norms of the states and of their differences, after the first convolution and each block."""
    traces: list[Trace] = []
    for i, (name, data) in enumerate(known.items()):
        curves: list[tuple[str, Sequence[float]]] = [("state", data.get("norms") or [])]
        for kind in ("noise", "attack"):
            entry = data.get(kind) or {}
            curves.append((f"difference, {entry.get('label', kind)}", entry.get("differences") or []))
        for j, (what, values) in enumerate(curves):
            trace: Trace = {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(range(len(values))),
                "y": list(values),
                "name": line_name(name, what, several),
                "line": {"color": pick(COLOURS, i if several else j), "dash": pick(DASHES, j)},
                "marker": {"symbol": pick(SYMBOLS, j), "size": 6},
            }
            if values:
                traces.append(trace)
    layout = {
        "xaxis": {"title": {"text": "blocks behind"}, "dtick": 1},
        "yaxis": {"title": {"text": "mean norm"}, "type": "log", "exponentformat": "power"},
    }
    return figure(traces, layout, "Norms of states and of their differences over the blocks") if traces else ""


def _table(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        {
            "marked": not row.get("stable", True),
            "cells": [
                row["block"],
                *(number(value) for value in (*row["a"], row.get("b0"), row.get("k"))),
                number(row.get("order")),
                "start" if row.get("start") else number(row.get("modulus")),
                "yes" if row.get("stable", True) else "no",
            ],
        }
        for row in blocks
    ]
    return {"names": _COLUMNS, "rows": rows, "note": _NOTE}
