"""The layer profile: how far each layer's output moves under each perturbation, and which layers move too far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, DASHES, SYMBOLS, Trace, figure, fill, line_name, pick
from buttress.report.kinds import Key, Section, renderer
from buttress.report.layer_table import (
    MEANINGS,
    Data,
    first_layers,
    layer_table,
    main_perturbation,
    place_meaning,
    place_table,
    threshold,
    vulnerable_layers,
)
from buttress.report.text import escape_label, number, some

_PLACES = (
    ("Smallest margin", "margin", "the layer that tolerates least of what it suffers"),
    ("Patching needs least", "recovery", "the layer of which least has to be put right"),
)
_MEASURES = {"relative_error": "relative error", "centred": "centred relative error"}


@renderer("layers")
def layers(findings: Mapping[str, Finding]) -> Section:
    """A line per network and perturbation, thresholds of the most vulnerable layers, and a table per network."""
    entries = {name: {k: v for k, v in f.data.items() if v is not None} for name, f in findings.items()}
    data = {name: entry for name, entry in entries.items() if entry.get("layers")}
    if not data:
        return Section("")
    first = next(iter(data.values()))
    plots = {_measure(first): _profile(data, _measure(first))}
    for other, measure in _MEASURES.items():
        second = {name: {**_bare(d), **d[other]} for name, d in data.items() if d.get(other)}
        if second:
            plots[measure] = _profile(second, measure)
    if any(entry.get("patching") for entry in data.values()):
        plots["clean values put back"] = _patching(data)
    tables = {name: layer_table(d) for name, d in data.items()}
    places = {name: place_table(d) for name, d in data.items()}
    columns = {column for content in tables.values() for row in content["rows"] for column in row}
    html = fill(
        "layers.html",
        plots=plots,
        tables=tables,
        places=places,
        meanings={name: text for name, text in MEANINGS.items() if name in columns}
        | {head: place_meaning(head) for table in places.values() for head in table["heads"]},
        several=len(data) > 1,
    )
    return Section(html, tuple(_keys(data, main_perturbation(first))))


def _keys(data: Mapping[str, Data], main: str | None) -> Iterator[Key]:
    """Which layers come first by margin, by patching and, as published, by displacement."""
    for label, by, meaning in _PLACES:
        texts = {name: text for name, entry in data.items() if (text := first_layers(entry, by)) is not None}
        if texts:
            yield Key(label, texts, {}, f"{meaning}, under {main}")
    mvl = {name: _named(entry) for name, entry in data.items() if "mvl" in entry}
    if mvl:
        yield Key("Most displaced layers (published MVL)", mvl, {}, f"under {main}, largest first")


def _named(data: Data) -> str:
    """What algorithm 1 names; of layers that cannot be told apart all, marked as such."""
    ranking = data.get("ranking") or {}
    tied = ranking.get("first") or []
    return some(ranking.get("names") or vulnerable_layers(data)) + (" (not told apart)" if len(tied) > 1 else "")


def _bare(data: Data) -> dict[str, Any]:
    """The names alone: thresholds and quantiles speak of the first measure."""
    return {"layers": data["layers"], "perturbations": data["perturbations"]}


def _measure(data: Data) -> str:
    measure = str(data.get("measure", "relative_error"))
    return _MEASURES.get(measure, measure.replace("_", " "))


def _profile(data: Mapping[str, Data], measure: str) -> str:
    """Networks by colour and perturbations by dash; with one network, perturbations by colour."""
    several = len(data) > 1
    traces, lines = [], []
    for n, (network, entry) in enumerate(data.items()):
        for i, perturbation in enumerate(entry["perturbations"]):
            colour = pick(COLOURS, n if several else i)
            name = line_name(network, perturbation, several)
            trace = _line(entry, i, name, colour, "solid" if not several else pick(DASHES, i))
            # Two networks under many noises are a thicket: a click in the legend brings the others in.
            traces.append({**trace, "visible": True if not several or i < 2 else "legendonly"})
        if (height := threshold(entry)) is not None:
            text = line_name(network, f"threshold, μ + {entry['eta']:.3g} σ", several)
            lines.append(_threshold_line(text, height, pick(COLOURS, n if several else 0)))
    names = list(dict.fromkeys(escape_label(layer) for entry in data.values() for layer in entry["layers"]))
    layout = {
        "xaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": names,
            "range": [-0.4, len(names) - 0.6],
            "title": {"text": "layer, in order of execution"},
        },
        "yaxis": {"title": {"text": escape_label(measure)}, "rangemode": "tozero"},
        "shapes": lines,
    }
    return figure(traces, layout, f"Layer profile: {measure} of each layer under each perturbation", height=440)


def _patching(data: Mapping[str, Data]) -> str:
    """A line per layer: what comes right again as more of its clean value is put back in the attacked pass."""
    several, traces = len(data) > 1, list[Trace]()
    for n, (network, entry) in enumerate(data.items()):
        patched = entry.get("patching") or {"curve": [], "doses": []}
        curves = zip(entry["layers"], patched["curve"], strict=False)
        for k, (layer, curve) in enumerate((layer, curve) for layer, curve in curves if curve):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [0, *patched["doses"]],
                    "y": [0, *curve],
                    "name": line_name(network, layer, several),
                    "line": {"color": pick(COLOURS, k), "dash": pick(DASHES, n if several else k // len(COLOURS))},
                }
            )
    layout = {
        "xaxis": {"title": {"text": "share of the layer's displacement taken away"}, "range": [0, 1]},
        "yaxis": {"title": {"text": "beaten inputs right again"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    label = "Patching: the share of beaten inputs that are right again as each layer's clean value is put back"
    return figure(traces, layout, label, height=400)


def _threshold_line(name: str, height: float, colour: str) -> dict[str, Any]:
    """A line across the figure, explained in the legend: a caption beside it would meet the curves."""
    return {
        "type": "line",
        "layer": "between",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": height,
        "y1": height,
        "line": {"color": colour, "width": 1.2, "dash": "4px,3px"},
        "name": name,
        "showlegend": True,
    }


def _line(data: Data, index: int, name: str, colour: str, dash: str) -> Trace:
    vulnerable = set(data.get("mvl", {}).get(data["perturbations"][index], []))
    hit = [layer in vulnerable for layer in data["layers"]]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [escape_label(layer) for layer in data["layers"]],
        "y": list(data["mean"][index]),
        "name": name,
        "hoverinfo": "text",
        "hovertext": [_hover(data, index, place, name, hit[place]) for place in range(len(hit))],
        "line": {"color": colour, "width": 2.5 if index == 0 else 1.8, "dash": dash},
        "marker": {
            "color": colour,
            "symbol": ["diamond" if h else pick(SYMBOLS[:3], index) for h in hit],
            "size": [14 if h else 7 for h in hit],
            "line": {"color": "#ffffff", "width": [2 if h else 0 for h in hit]},
        },
    }


def _hover(data: Data, index: int, place: int, name: str, vulnerable: bool) -> str:
    lines = [f"<b>{escape_label(data['layers'][place])}</b>", name, f"mean {number(data['mean'][index][place])}"]
    if data.get("std"):
        lines[-1] += f", sd {number(data['std'][index][place])}"
    for share, rows in (data.get("quantiles") or {}).items():
        what = "median" if float(share) == 0.5 else f"{100 * float(share):g}% quantile"
        lines.append(f"{what} {number(rows[index][place])}")
    if (data.get("excluded") or None) and data["excluded"][index][place]:
        lines.append(f"{data['excluded'][index][place]} inputs left out (division by 0)")
    return "<br>".join([*lines, "<b>among the most displaced</b>"] if vulnerable else lines)
