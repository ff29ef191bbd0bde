"""What is known of each layer, as the texts of tables and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.base.rank_intervals import may_be_first
from buttress.report.text import number, percent, some

Data = Mapping[str, Any]
Rows = Sequence[Sequence[float | None]]

# What the columns mean; those that a profile lacks are not shown.
MEANINGS = {
    "gain": "How much larger the relative change is here than at the layer before: above 1, the perturbation grows.",
    "tolerance": "The smallest relative change of this layer's own output that flips the prediction (median over "
    "inputs): what the layers above tolerate.",
    "margin": "Tolerance over change, input by input (median): at 1 or below, the attack moves the layer further than "
    "the network tolerates. An added constant cannot raise it, as it can lower the relative change.",
    "restored": "The share of the beaten inputs that are right again with the layer's whole clean value in the "
    "attacked pass. Where every path goes through the layer that is all of them.",
    "recovery": "The same share on average over all doses: of the layer's displacement, ever more is taken away. High "
    "where little has to go.",
    "half dose": "The share of the layer's displacement that has to be taken away until half of the beaten inputs are "
    "right again; a dash where the whole is not enough.",
    "few": "The share that are right again with the clean values of the most displaced tenth of the layer's units.",
    "crossed": "Whether every path from input to output goes through the layer; elsewhere a perturbation can get "
    "past it.",
}


def main_perturbation(data: Data) -> str | None:
    """The perturbation that the most vulnerable layers speak of: the first."""
    return next(iter(data["perturbations"]), None)


def vulnerable_layers(data: Data) -> list[str]:
    """What algorithm 1 names under the main perturbation."""
    names: list[str] = data.get("mvl", {}).get(main_perturbation(data), [])
    return names


def threshold(data: Data) -> float | None:
    """The displacement above which algorithm 1 names a layer; None where it is not known."""
    mu, sigma, eta = (data.get(name) for name in ("mu", "sigma", "eta"))
    main = main_perturbation(data)
    if not mu or not sigma or eta is None or mu.get(main) is None or sigma.get(main) is None:
        return None
    return float(mu[main] + eta * sigma[main])


def layer_table(data: Data) -> dict[str, Any]:
    """Texts of a network's table: a dictionary per layer, which has only the columns that are known."""
    names, main = data["layers"], main_perturbation(data)
    means: Rows = data["mean"]
    change = means[0] if main is not None else [None] * len(names)
    gain = (data.get("gain") or {}).get(main)
    tolerance, margin, crossed = (data.get(name) for name in ("tolerance", "margin", "crossed_by_every_path"))
    patched = data.get("patching")
    rows = []
    for i, name in enumerate(names):
        deviations = data.get("std") or []
        # One spread is enough for a table; those of the other perturbations are a hover away.
        has_spread = bool(deviations) and change[i] is not None
        spread = [f" ± {number(deviations[0][i], 2)}" if has_spread else "", *[""] * len(means)]
        row: dict[str, Any] = {
            "layer": name,
            "vulnerable": name in vulnerable_layers(data),
            "change": [(number(line[i]), spread[k]) for k, line in enumerate(means)],
        }
        if gain:
            row["gain"] = number(gain[i])
        if tolerance:
            row["tolerance"] = number(tolerance[i])
        if margin:
            row["margin"] = number(margin[i])
            row["beaten"] = margin[i] is not None and margin[i] <= 1
        if patched:
            row |= {name: percent(patched[name][i]) for name in ("restored", "recovery", "few")}
            row["half dose"] = number(patched["half_dose"][i])
        if crossed:
            row["crossed"] = "yes" if crossed[i] else "no"
        rows.append(row)
    return {"rows": rows, "perturbations": data["perturbations"], "notes": _notes(data)}


def place_table(data: Data) -> dict[str, Any]:
    """Texts of the places of a network's layers: what they are ranked by, and a row of cells per layer.

    The whole clean value of a layer that every path crosses restores everything, which is no place.
    """
    crossed = data.get("crossed_by_every_path") or [False] * len(data["layers"])
    heads, columns = [], []
    for name, ranked in ((data.get("ranks") or {}).get("by") or {}).items():
        cells = [place_text(*ends) for ends in zip(ranked["rank"], ranked["low"], ranked["high"], strict=True)]
        if name == "restored":
            cells = ["–" if is_crossed else cell for cell, is_crossed in zip(cells, crossed, strict=True)]
        if set(cells) != {"–"}:
            heads.append(f"place by {name.replace('_', ' ')}")
            columns.append(cells)
    return {"heads": heads, "rows": list(zip(data["layers"], *columns, strict=True)) if columns else []}


def place_meaning(head: str) -> str:
    """What a column of `place_table` shows."""
    what = {
        "recovery": "the share of beaten inputs that are right again, over all doses",
        "restored": "the share of beaten inputs that the whole clean value puts right (a dash where every path goes "
        "through the layer, which puts all right)",
        "few": "the share of beaten inputs that the most displaced tenth of the units puts right",
        "tolerance": "the smallest tolerance",
        "margin": "the smallest margin",
    }
    name = head.removeprefix("place by ")
    return (
        f"Place among the layers, most vulnerable first, by {what.get(name, f'the mean {name}')}; in brackets the "
        "places that the inputs leave open, at 95 % for all layers of the column together."
    )


def first_layers(data: Data, by: str) -> str | None:
    """The layers that may come first by a measure, as text; None where there are no places by it."""
    places = ((data.get("ranks") or {}).get("by") or {}).get(by)
    ranked = sum(rank is not None for rank in places["rank"]) if places else 0
    if not places or not ranked:
        return None
    first = [data["layers"][k] for k in may_be_first(places)]
    if len(first) == ranked > 1:
        return "no layer stands out"
    return some(first) + (" (not told apart)" if len(first) > 1 else "")


def place_text(rank: int | None, low: int | None, high: int | None) -> str:
    """A place with those that the inputs leave open: "2 (1–3)"."""
    if rank is None:
        return "–"
    return str(rank) if low == high == rank else f"{rank} ({low}–{high})"


def _notes(data: Data) -> list[str]:
    main, notes = main_perturbation(data), []
    suggested = (data.get("suggested_eta") or {}).get(main)
    if (height := threshold(data)) is not None:
        text = f"Above μ + {data['eta']:.3g} σ = {number(height)} under {main}: {some(vulnerable_layers(data), 8)}."
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
    notes += _reasons("Not measured", data.get("left_out") or {})
    if data.get("missed"):
        notes.append(f"Perhaps layers, but written by hand and not seen as such: {some(data['missed'], 8)}.")
    if data.get("tolerance_inputs"):
        notes.append(f"Tolerance and margin: {data['tolerance_inputs']:,} inputs.")
    if part := data.get("looked_closer"):
        notes.append(
            f"Tolerance and patching: {len(part)} of {len(data['layers'])} layers (most_layers), half of them the most "
            "displaced and half spread evenly over the rest."
        )
    notes += _reasons("Tolerance not searched", data.get("not_searched") or {})
    notes += _patching_notes(data)
    if unpaired := [name for names in (data.get("unpaired") or {}).values() for name in names]:
        names = some(list(dict.fromkeys(unpaired)), 8)
        notes.append(f"Left out, being called by one of the two passes only, or of other parts of an input: {names}.")
    if choosing := data.get("choosing_steps"):
        notes.append(
            f"{some(choosing, 8)}: chooses its steps, and others for clean inputs than for attacked ones. Its output "
            "represents what is inside; calls inside that were named are compared in their order, not at equal times."
        )
    return notes


def _patching_notes(data: Data) -> list[str]:
    """On how many inputs, by which paths, and what could not be patched."""
    if "patching_inputs" not in data:
        return []
    patched = data.get("patching")
    if not patched:
        return [f"No input is beaten under {main_perturbation(data)}: there is nothing to put right by patching."]
    notes = [f"Patching: {data['patching_inputs']:,} beaten inputs."]
    counts = zip(data["layers"], patched.get("called") or (), strict=False)
    if part := [f"{name} ({count:,})" for name, count in counts if 0 < (count or 0) < data["patching_inputs"]]:
        notes.append(f"Called by a part of them, and told of these alone: {some(part, 8)}.")
    strongest = sorted(_telling(patched, data), key=lambda path: -path["restored"])
    if strongest:
        texts = [
            f"{path['from']} to {path['to'] or 'the output'} ({percent(path['restored'])}{_of_a_part(path, data)})"
            for path in strongest
        ]
        more = f"; {patched['paths_left_out']:,} weaker ones were not patched" if patched["paths_left_out"] else ""
        notes.append(f"Direct paths that restore most, one at a time: {some(texts, 5)}{more}.")
    return [*notes, *_reasons("Not patched", patched["left_out"])]


def _of_a_part(path: Mapping[str, Any], data: Data) -> str:
    """How many inputs a path's share is of, where these are not all that are beaten."""
    inputs = path.get("inputs", data["patching_inputs"])
    return f" of {inputs:,}" if inputs < data["patching_inputs"] else ""


def _telling(patched: Data, data: Data) -> list[dict[str, Any]]:
    """The paths that restore something, less those that must: the only one from a layer that every path crosses."""
    crossed = data.get("crossed_by_every_path") or [False] * len(data["layers"])
    on_every_path = {layer for layer, is_crossed in zip(data["layers"], crossed, strict=True) if is_crossed}
    senders = Counter(path["from"] for path in patched["paths"])
    return [
        path
        for path in patched["paths"]
        if path["restored"]
        and (senders[path["from"]] > 1 or path["from"] not in on_every_path or patched["paths_left_out"])
    ]


def _reasons(what: str, left_out: Mapping[str, str]) -> list[str]:
    return [f"{what}: {some([f'{layer}, which {reason}' for layer, reason in left_out.items()], 8)}."] * bool(left_out)
