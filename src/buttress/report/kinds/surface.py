"""The loss around inputs: shades over a plane, cuts through it, and figures of many inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, Trace, buttons, figure, fill, pick
from buttress.report.kinds import Section, renderer
from buttress.report.kinds.boundary import SCALE
from buttress.report.text import escape_label, interval, number, percent
from buttress.threat import budget_text

Data = Mapping[str, Any]

_INK = "#20242b"  # with a white rim seen on the plane and on dark pages
_ROWS = (
    ("linearity_error", "Linearity error"),
    ("share_of_rise", "As a share of the rise"),
    ("rise", "Rise that the gradient predicts"),
    ("curvature", "Curvature along the gradient"),
    ("roughness", "Roughness along the gradient"),
)


@renderer("surface")
def surface(findings: Mapping[str, Finding]) -> Section:
    """Of each network a plane by loss, with a button for each input, and the cuts; figures of all side by side."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("items")}
    panels = {name: _panel(entry) for name, entry in data.items()}
    html = fill("surface.html", panels=panels, tables=_tables(data), networks=list(data), several=len(findings) > 1)
    return Section(html)


def _panel(data: Data) -> dict[str, str]:
    plots = {f"{_name(loss)} around inputs": _plane(data, loss) for loss in reversed(data["losses"])}
    return {**plots, f"{_name(data['deciding'])} along both directions, and the tangent": _cuts(data)}


def axis_titles(data: Data) -> tuple[str, str]:
    """What the two directions of the plane are, in multiples of the budget."""
    towards = f"towards what {data['attack']} found" if data["direction"] == "attack" else "along the gradient"
    unit = f"in budgets ({data['norm']} ε {budget_text(data['eps'])})"
    return f"{towards}, {unit}", "a random direction across it"


def item_name(item: Data) -> str:
    """An input by its margin and its truth: "small margin: Bag"."""
    return f"{item['margin']} margin: {item['truth']}"


def _name(loss: str) -> str:
    return loss.replace("_", " ").capitalize()


def _plane(data: Data, loss: str) -> str:
    traces, groups = list[Trace](), list[int | None]()
    for k, item in enumerate(data["items"]):
        for trace in _shades(data, item, loss):
            traces.append({**trace, "visible": k == 0})
            groups.append(k)
    along, side = axis_titles(data)
    layout = {
        "xaxis": {"title": {"text": escape_label(along)}},
        "yaxis": {"title": {"text": side}},
        **buttons([item_name(item) for item in data["items"]], groups),
    }
    return figure(traces, layout, f"{_name(loss)} in the plane of two directions around an input", height=460)


def _shades(data: Data, item: Data, loss: str) -> list[Trace]:
    plane: Trace = {"type": "contour", "x": data["axis"], "y": data["axis"], "z": item["surfaces"][loss]}
    shade: Trace = {
        **plane,
        "colorscale": SCALE,
        "contours": {"showlines": True},
        "line": {"width": 0.4, "color": "#ffffff"},
        "ncontours": 24,
        "colorbar": {"thickness": 12, "len": 0.9, "title": {"text": escape_label(_name(loss)), "side": "right"}},
        "hovertemplate": "%{x:.2f}, %{y:.2f}: %{z:.4g}<extra></extra>",
    }
    budget: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": item["budget"][0],
        "y": item["budget"][1],
        "name": "the budget",
        "line": {"color": COLOURS[3], "width": 2, "dash": "dash"},
        "hoverinfo": "name",
    }
    start: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [0],
        "y": [0],
        "name": "the input",
        "marker": {"color": _INK, "size": 9, "line": {"color": "#ffffff", "width": 1.5}},
        "hoverinfo": "name",
    }
    traces = [shade, budget, start]
    if loss == "margin":
        border: Trace = {
            **plane,
            "contours": {"start": 0, "end": 0, "size": 1, "coloring": "none"},
            "line": {"width": 2.4, "color": COLOURS[4]},
            "showscale": False,
            "showlegend": True,
            "name": "where the answer turns wrong",
            "hoverinfo": "skip",
        }
        traces.insert(1, border)
    return traces


def _cuts(data: Data) -> str:
    """Through each input: along the first direction, across, and the tangent of the first."""
    loss, axis, traces = data["deciding"], data["axis"], list[Trace]()
    groups, middle = list[int | None](), len(axis) // 2
    for k, item in enumerate(data["items"]):
        values, rises = item["surfaces"][loss], item["tangents"][loss]
        start = values[middle][middle]
        lines = {
            "along the first direction": (values[middle], "solid", 2.4),
            "across it": ([row[middle] for row in values], "dash", 1.8),
            "tangent along the first": ([start + rise for rise in rises], "dot", 1.6),
        }
        for n, (name, (y, dash, width)) in enumerate(lines.items()):
            line = {"color": pick(COLOURS, n), "dash": dash, "width": width}
            entry: Trace = {"type": "scatter", "mode": "lines", "x": axis, "y": y, "name": name, "line": line}
            traces.append({**entry, "visible": k == 0})
            groups.append(k)
    ends = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": "#868d98", "width": 1, "dash": "dot"}}
    layout = {
        "xaxis": {"title": {"text": f"in budgets ({data['norm']} ε {budget_text(data['eps'])}); dotted: its ends"}},
        "yaxis": {"title": {"text": escape_label(_name(loss))}},
        "shapes": [{**ends, "x0": place, "x1": place} for place in (-1, 1)],
        **buttons([item_name(item) for item in data["items"]], groups),
    }
    return figure(traces, layout, f"{_name(loss)} along both directions, with its tangent", height=380)


def _tables(data: Mapping[str, Data]) -> dict[str, list[list[str]]]:
    """By loss, rows of texts: a name and a cell for each network; last, by which inputs a random step does better."""
    if not data:
        return {}
    first = next(iter(data.values()))
    tables = {}
    for loss in reversed(first["losses"]):
        rows = [
            [name, *(_cell(entry["measures"].get(loss, {}).get(key)) for entry in data.values())] for key, name in _ROWS
        ]
        if loss == first["deciding"]:
            for where, name in (("near", "A random step is steeper, near by"), ("budget", "The same at the budget")):
                rows.append([name, *(_share(entry["steeper"][where]) for entry in data.values())])
        tables[_name(loss)] = rows
    return tables


def _cell(measure: Data | None) -> str:
    if measure is None:
        return "–"
    return f"{number(measure['median'])} ({number(measure['low'])} to {number(measure['high'])})"


def _share(found: Data) -> str:
    return f"{percent(found['share'])} ({interval(found['low'], found['high'])})"
