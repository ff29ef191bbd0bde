"""Where a network on two features draws the line, a panel per network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, Trace, figure, fill, pick
from buttress.report.kinds import Section, renderer
from buttress.report.text import escape_label

SCALE = [[0.0, "#6ea8e6"], [0.5, "#e9eaec"], [1.0, "#eda25c"]]
_INK = "#20242b"  # the plane is light in light and dark pages alike


@renderer("boundary")
def boundary(findings: Mapping[str, Finding]) -> Section:
    """Probability of the last class over the plane, the line where it is one half, and the inputs."""
    panels = {name: _panel(name, finding.data) for name, finding in findings.items() if finding.data.get("x")}
    return Section(fill("boundary.html", panels=panels, several=len(findings) > 1))


def _panel(network: str, data: Mapping[str, Any]) -> str:
    classes = [str(c) for c in data.get("classes", [])]
    last = escape_label(classes[-1]) if classes else "the last class"
    plane: Trace = {"type": "contour", "x": data["x"], "y": data["y"], "z": data["probability"], "hoverinfo": "skip"}
    shade: Trace = {
        **plane,
        "zmin": 0,
        "zmax": 1,
        "colorscale": SCALE,
        "contours": {"start": 0, "end": 1, "size": 0.05, "showlines": False},
        "line": {"width": 0},
        "colorbar": {
            "title": {"text": f"P({last})", "side": "right"},
            "tickformat": ".0%",
            "thickness": 12,
            "len": 0.9,
        },
    }
    edge: Trace = {
        **plane,
        "contours": {"start": 0.5, "end": 0.5, "size": 1, "coloring": "none"},
        "line": {"color": _INK, "width": 2},
        "showscale": False,
        "showlegend": False,
    }
    traces = [shade, edge, *_inputs(data.get("points") or {}, classes)]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "feature 1"}, "showgrid": False, "zeroline": False, "constrain": "domain"},
        "yaxis": {"title": {"text": "feature 2"}, "showgrid": False, "zeroline": False, "constrain": "domain"},
    }
    layout["yaxis"]["scaleanchor"] = "x"
    return figure(traces, layout, f"Decision boundary of {network}", height=420)


def _inputs(points: Mapping[str, Any], classes: list[str]) -> list[Trace]:
    """The inputs, a trace for each class."""
    labels = sorted(set(points.get("label") or []), key=str)
    has_name = {label: isinstance(label, int) and 0 <= label < len(classes) for label in labels}
    return scatter_traces(points, {label: classes[label] if has_name[label] else str(label) for label in labels})


def scatter_traces(points: Mapping[str, Any], names: Mapping[Any, str]) -> list[Trace]:
    """Inputs on a plane, a trace for each label of ``names``, which says what it is called."""
    labels = points.get("label") or []
    traces = []
    for i, (label, name) in enumerate(names.items()):
        rows = [row for row, other in enumerate(labels) if other == label]
        trace: Trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [points["x"][row] for row in rows],
            "y": [points["y"][row] for row in rows],
            "name": escape_label(name),
            "hoverinfo": "x+y+name",
            "marker": {"color": pick(COLOURS, i), "size": 6, "line": {"color": _INK, "width": 0.8}},
        }
        traces.append(trace)
    return traces
