"""The layers of several networks on one axis: what each measure says of them, and their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, SYMBOLS, Trace, buttons, figure, fill, pick
from buttress.report.kinds import Section, renderer
from buttress.report.layer_table import place_text
from buttress.report.text import escape_label, number

Data = Mapping[str, Any]

_NAMES = {
    "relative_error": "relative displacement",
    "centred": "centred displacement",
    "recovery": "patching",
    "few": "patching of few units",
}


@renderer("layer-comparison")
def layer_comparison(findings: Mapping[str, Finding]) -> Section:
    """A line for each network over relative depth, by values and by places, and a table where layers are the same."""
    data = {name: finding.data for name, finding in findings.items()}
    first = next(iter(data.values()))
    measures = [name for name in first["by"] if all(name in entry["by"] for entry in data.values())]
    if not measures:
        return Section("")
    plots = {
        "By each measure": _figure(data, measures, places=False),
        "Places, most vulnerable first": _figure(data, measures, places=True),
    }
    alike = all(entry["same_layers"] for entry in data.values())
    tables = {_name(measure): _table(data, measure) for measure in measures} if alike else {}
    return Section(fill("layer_comparison.html", plots=plots, tables=tables, networks=list(data)))


def _name(measure: str) -> str:
    return _NAMES.get(measure, measure.replace("_", " "))


def _figure(data: Mapping[str, Data], measures: Sequence[str], places: bool) -> str:
    traces, groups = list[Trace](), list[int | None]()
    for k, measure in enumerate(measures):
        for n, (network, entry) in enumerate(data.items()):
            traces.append({**_line(network, entry, measure, n, places), "visible": k == 0})
            groups.append(k)
    names = [_name(measure) for measure in measures]
    titles = [f"place by {name}" if places else name for name in names]
    layout = {
        "xaxis": {"title": {"text": "relative depth, from the first layer to the last"}, "range": [-0.03, 1.03]},
        "yaxis": {
            "title": {"text": escape_label(titles[0])},
            **({"autorange": "reversed", "dtick": 1} if places else {}),
        },
        **buttons(names, groups, titles),
    }
    label = "Places of the layers" if places else "What each measure says of the layers"
    return figure(traces, layout, f"{label}, by relative depth and network", height=440)


def _line(network: str, data: Data, measure: str, index: int, places: bool) -> Trace:
    by, colour = data["by"][measure], pick(COLOURS, index)
    y = by["rank"] if places else by["values"]
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": data["depth"],
        "y": y,
        "name": escape_label(network),
        "line": {"color": colour},
        "marker": {"color": colour, "symbol": pick(SYMBOLS, index), "size": 8},
        "hoverinfo": "text",
        "hovertext": [_hover(network, data, measure, k) for k in range(len(data["layers"]))],
    }
    if places:
        ends = [(0, 0) if None in end else (end[2] - end[0], end[0] - end[1]) for end in _places(by)]
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [above for above, _ in ends],
            "arrayminus": [below for _, below in ends],
            "color": colour,
            "thickness": 1,
            "width": 3,
        }
    return trace


def _places(by: Data) -> list[tuple[Any, Any, Any]]:
    return list(zip(by["rank"], by["low"], by["high"], strict=True))


def _hover(network: str, data: Data, measure: str, k: int) -> str:
    by = data["by"][measure]
    lines = [f"<b>{escape_label(data['layers'][k])}</b>", escape_label(network)]
    return "<br>".join([*lines, f"{_name(measure)} {number(by['values'][k])}", f"place {place_text(*_places(by)[k])}"])


def _table(data: Mapping[str, Data], measure: str) -> list[dict[str, Any]]:
    """A row for each layer: value and place in each network, marked where a place is shown to be another."""
    shifted = {layer for entry in data.values() for layer in entry["moves"].get(measure, {}).get("shifted", [])}
    rows = []
    for k, layer in enumerate(next(iter(data.values()))["layers"]):
        cells = []
        for entry in data.values():
            by = entry["by"][measure]
            cells += [number(by["values"][k]), place_text(*_places(by)[k])]
        rows.append({"layer": layer, "cells": cells, "shifted": layer in shifted})
    return rows
