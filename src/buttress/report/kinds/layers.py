"""The layer profile: how far each layer's output moves under each perturbation, and which layers move too far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, DASHES, SYMBOLS, Trace, figure, fill, line_name, pick
from buttress.report.kinds import Key, Section, renderer
from buttress.report.text import escape_label, number, some

Data = Mapping[str, Any]
Rows = Sequence[Sequence[float | None]]

_MEASURES = {"relative_error": "relative error", "centred": "centred relative error"}

# What the columns mean; those that a profile lacks are not shown.
MEANINGS = {
    "gain": "How much larger the relative change is here than at the layer before: above 1, the perturbation grows.",
    "tolerance": "The smallest relative change of this layer's own output that flips the prediction (median over "
    "inputs): what the layers above tolerate.",
    "margin": "Tolerance over change, input by input (median): at 1 or below, the attack moves the layer further than "
    "the network tolerates. An added constant cannot raise it, as it can lower the relative change.",
    "rank": "Place among the layers, most vulnerable first: by the change, and by the margin where it is known.",
    "crossed": "Whether every path from input to output goes through the layer; elsewhere a perturbation can get "
    "past it.",
}


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
    tables = {name: _table(d) for name, d in data.items()}
    columns = {column for content in tables.values() for row in content["rows"] for column in row}
    html = fill(
        "layers.html",
        plots=plots,
        tables=tables,
        meanings={name: text for name, text in MEANINGS.items() if name in columns},
        several=len(data) > 1,
    )
    mvl = {name: _named(d) for name, d in data.items() if "mvl" in d}
    note = f"under {_main(first)}, most vulnerable first"
    return Section(html, (Key("Most vulnerable layers", mvl, {}, note),) if mvl else ())


def _named(data: Data) -> str:
    """The most vulnerable layers; of layers that cannot be told apart all, marked as such."""
    ranking = data.get("ranking") or {}
    tied = ranking.get("first") or []
    return some(ranking.get("names") or _mvl(data)) + (" (not told apart)" if len(tied) > 1 else "")


def _bare(data: Data) -> dict[str, Any]:
    """The names alone: thresholds and quantiles speak of the first measure."""
    return {"layers": data["layers"], "perturbations": data["perturbations"]}


def _measure(data: Data) -> str:
    measure = str(data.get("measure", "relative_error"))
    return _MEASURES.get(measure, measure.replace("_", " "))


def _main(data: Data) -> str | None:
    """The perturbation that the most vulnerable layers speak of: the first."""
    return next(iter(data["perturbations"]), None)


def _mvl(data: Data) -> list[str]:
    names: list[str] = data.get("mvl", {}).get(_main(data), [])
    return names


def _threshold(data: Data) -> float | None:
    mu, sigma, eta = (data.get(name) for name in ("mu", "sigma", "eta"))
    main = _main(data)
    if not mu or not sigma or eta is None or mu.get(main) is None or sigma.get(main) is None:
        return None
    return float(mu[main] + eta * sigma[main])


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
        if (threshold := _threshold(entry)) is not None:
            text = line_name(network, f"threshold, μ + {entry['eta']:.3g} σ", several)
            lines.append(_threshold_line(text, threshold, pick(COLOURS, n if several else 0)))
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
    return "<br>".join([*lines, "<b>among the most vulnerable</b>"] if vulnerable else lines)


def _ranks(values: Sequence[float | None], *, largest_first: bool) -> list[str]:
    ranked = sorted((v for v in values if v is not None), reverse=largest_first)
    return ["–" if v is None else str(1 + ranked.index(v)) for v in values]


def _table(data: Data) -> dict[str, Any]:
    """Texts of a network's table: a dictionary per layer, which has only the columns that are known."""
    names, main = data["layers"], _main(data)
    means: Rows = data["mean"]
    change = means[0] if main is not None else [None] * len(names)
    gain = (data.get("gain") or {}).get(main)
    tolerance, margin, crossed = (data.get(name) for name in ("tolerance", "margin", "crossed_by_every_path"))
    by_change = _ranks(change, largest_first=True)
    by_margin = _ranks(margin, largest_first=False) if margin else None
    rows = []
    for i, name in enumerate(names):
        deviations = data.get("std") or []
        # One spread is enough for a table; those of the other perturbations are a hover away.
        has_spread = bool(deviations) and change[i] is not None
        spread = [f" ± {number(deviations[0][i], 2)}" if has_spread else "", *[""] * len(means)]
        row: dict[str, Any] = {
            "layer": name,
            "vulnerable": name in _mvl(data),
            "change": [(number(line[i]), spread[k]) for k, line in enumerate(means)],
            "rank": by_change[i] + (f" / {by_margin[i]}" if by_margin else ""),
        }
        if gain:
            row["gain"] = number(gain[i])
        if tolerance:
            row["tolerance"] = number(tolerance[i])
        if margin:
            row["margin"] = number(margin[i])
            row["beaten"] = margin[i] is not None and margin[i] <= 1
        if crossed:
            row["crossed"] = "yes" if crossed[i] else "no"
        rows.append(row)
    return {"rows": rows, "perturbations": data["perturbations"], "notes": _notes(data)}


def _notes(data: Data) -> list[str]:
    main, notes = _main(data), []
    suggested = (data.get("suggested_eta") or {}).get(main)
    if (threshold := _threshold(data)) is not None:
        text = f"Above μ + {data['eta']:.3g} σ = {number(threshold)} under {main}: {some(_mvl(data), 8)}."
        notes.append(text + (f" Suggested η: {number(suggested)}." if suggested is not None else ""))
    ranking, growth = data.get("ranking") or {}, data.get("growth") or {}
    if "method" in ranking:
        notes.append(f"May be displaced most: {some(ranking['first'], 8)} ({ranking['method']}).")
    if growth.get("first"):
        gains = zip(data["layers"], growth["gain"], growth["low"], growth["high"], strict=True)
        texts = [f"{name} {number(gain)} ({number(low)} to {number(high)})" for name, gain, low, high in gains]
        notes.append(f"Gain of the centred change under {main}: {some(texts, 8)}.")
    if data.get("rank_correlation") is not None:
        rho = f"{data['rank_correlation']:.2f}".replace("-", "−")
        notes.append(f"Rank correlation (Spearman) of the two orders, by change and by margin: {rho}.")
    if data.get("inputs"):
        notes.append(f"{data['inputs']:,} inputs.")
    if data.get("tolerance_inputs"):
        notes.append(f"Tolerance and margin: {data['tolerance_inputs']:,} inputs.")
    if unpaired := [name for names in (data.get("unpaired") or {}).values() for name in names]:
        names = some(list(dict.fromkeys(unpaired)), 8)
        notes.append(f"Left out, being called by one of the two passes only: {names}.")
    if choosing := data.get("choosing_steps"):
        notes.append(
            f"{some(choosing, 8)}: chooses its steps, and others for clean inputs than for attacked ones. Its output "
            "represents what is inside; calls inside that were named are compared in their order, not at equal times."
        )
    return notes
