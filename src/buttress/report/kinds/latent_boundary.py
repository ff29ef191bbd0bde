"""Steps across a latent boundary as a strip of images, and the plane around them, a panel per network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import Trace, figure, fill
from buttress.report.kinds import Section, renderer
from buttress.report.kinds.boundary import scatter_traces
from buttress.report.kinds.examples import embedded_png
from buttress.report.text import escape_label, percent

_SCALE = [[0.0, "#6ea8e6"], [0.5, "#e9eaec"], [1.0, "#eda25c"]]
_INK = "#20242b"  # the plane is light in light and dark pages alike


@renderer("latent-boundary")
def latent_boundary(findings: Mapping[str, Finding]) -> Section:
    """A strip of decoded images with the network's answers, and the target's probability over the plane."""
    panels = {name: _panel(name, finding.data) for name, finding in findings.items() if finding.data.get("x")}
    return Section(fill("latent_boundary.html", panels=panels, several=len(findings) > 1))


def _panel(network: str, data: Mapping[str, Any]) -> dict[str, Any]:
    names = [str(name) for name in data.get("pair") or ("the source", "the target")]
    items = [
        {
            "step": f"{item.get('step', 0.0):+.3g}",
            "label": item.get("label", ""),
            "confidence": percent(item.get("confidence")),
            "target": item.get("label") == names[1],
            "image": embedded_png(item.get("image")),
        }
        for item in data.get("items") or []
    ]
    others = data.get("other_classes")
    return {
        "plot": _plot(network, data, names),
        "items": items,
        "source": names[0],
        "target": names[1],
        "layer": data.get("layer", "a layer"),
        "others": None if others is None else percent(others),
    }


def _plot(network: str, data: Mapping[str, Any], names: list[str]) -> str:
    plane: Trace = {"type": "contour", "x": data["x"], "y": data["y"], "z": data["probability"], "hoverinfo": "skip"}
    bar = {"title": {"text": escape_label(f"P({names[1]}) of the two"), "side": "right"}, "tickformat": ".0%"}
    shade: Trace = {
        **plane,
        "zmin": 0,
        "zmax": 1,
        "colorscale": _SCALE,
        "contours": {"start": 0, "end": 1, "size": 0.05, "showlines": False},
        "line": {"width": 0},
        "colorbar": {**bar, "thickness": 12, "len": 0.9},
    }
    edge: Trace = {
        **plane,
        "contours": {"start": 0.5, "end": 0.5, "size": 1, "coloring": "none"},
        "line": {"color": _INK, "width": 2},
        "showscale": False,
        "showlegend": False,
    }
    axis = {"showgrid": False, "zeroline": False}
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "along a ∘ w"}, **axis},
        "yaxis": {"title": {"text": "across"}, **axis},
    }
    traces = [shade, edge, *scatter_traces(data.get("points") or {}, {name: name for name in names})]
    return figure(traces, layout, f"Latent boundary of {network}", height=420)
