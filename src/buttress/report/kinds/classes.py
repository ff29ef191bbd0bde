"""Robust accuracy by class: a bar per class and network with its interval, and what attacked inputs are taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.class_agreement import between
from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, SHADES, Trace, figure, fill, pick
from buttress.report.kinds import Section, renderer, share_key
from buttress.report.text import escape_label, interval, number, percent, points_between

Data = Mapping[str, Any]
_COLUMNS = ("Class", "Inputs", "Clean", "Under attack", "Interval", "Most taken for", "Weight norm")
_ATTACKS = ("Attack", "Robust", "Worst class", "In it", "Order as the first's", "Interval", "Same worst", "Gain")
_SHOWN = 30  # classes whose confusion can be read as a picture


@renderer("classes")
def classes(findings: Mapping[str, Finding]) -> Section:
    """Bars, the confusion of attacked predictions where it can be read, and a table."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("classes")}
    if not data:
        return Section("")
    plots = [_bars(data)]
    plots += [_confusion(name, d) for name, d in data.items() if d.get("confusion") and len(d["classes"]) <= _SHOWN]
    rows = fill("rows.html", parts={name: _tables(d) for name, d in data.items()}, several=len(findings) > 1)
    attacks = " and ".join(dict.fromkeys(str(d.get("attack", "the attack")) for d in data.values()))
    shares = {name: min(row["accuracy"] for row in d["classes"]) for name, d in data.items()}
    return Section(
        "".join(plots) + rows + _networks(data), (share_key("Worst class", shares, f"robust accuracy under {attacks}"),)
    )


def _bars(data: Mapping[str, Data]) -> str:
    traces: list[Trace] = []
    for n, (network, entry) in enumerate(data.items()):
        rows = entry["classes"]
        shares = [row["accuracy"] for row in rows]
        bar: Trace = {
            "type": "bar",
            "x": [escape_label(row["class"]) for row in rows],
            "y": shares,
            "name": escape_label(network),
            "marker": {"color": pick(COLOURS, n)},
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [row.get("high", share) - share for row, share in zip(rows, shares, strict=True)],
                "arrayminus": [share - row.get("low", share) for row, share in zip(rows, shares, strict=True)],
            },
        }
        traces.append(bar)
    layout = {
        "barmode": "group",
        "xaxis": {"type": "category"},
        "yaxis": {"title": {"text": "robust accuracy"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    return figure(traces, layout, "Robust accuracy by class")


def _confusion(network: str, data: Data) -> str:
    shade: Trace = {
        "type": "heatmap",
        "x": [escape_label(str(name)) for name in data.get("predicted") or range(len(data["confusion"][0]))],
        "y": [escape_label(row["class"]) for row in data["classes"]],
        "z": data["confusion"],
        "zmin": 0,
        "zmax": 1,
        "colorscale": SHADES,
        "colorbar": {"tickformat": ".0%", "thickness": 12},
    }
    layout = {
        "xaxis": {"type": "category", "title": {"text": "taken for, under attack"}},
        "yaxis": {"type": "category", "title": {"text": "class"}, "autorange": "reversed"},
    }
    return figure([shade], layout, f"What attacked inputs are taken for by {network}", height=420)


def _tables(data: Data) -> list[dict[str, Any]]:
    attacks = data.get("attacks") or []
    if len(attacks) < 2:
        return [_table(data)]
    note = (
        "Order: Spearman's correlation of the classes' ranks with those under the first attack; same worst: the share "
        f"of resamples ({data.get('agreement_interval')}) in which the same class is the least robust. Gain: what the "
        "stronger of the two takes from the vulnerable half of the classes, less what it takes from the other half."
    )
    return [_table(data), {"names": _ATTACKS, "rows": [_attack(row) for row in attacks], "note": note}]


def _attack(row: Data) -> dict[str, Any]:
    agreement, gain = row.get("agreement") or {}, row.get("gain") or {}
    cells = [
        row["attack"],
        percent(row["robust"]),
        row["worst"],
        percent(row["worst_accuracy"]),
        *_order(agreement),
        percent(agreement.get("worst_share")),
        points_between(gain) if gain else "–",
    ]
    return {"marked": False, "cells": cells}


def _order(agreement: Data) -> tuple[str, str]:
    """Spearman's correlation of the order of the classes, and its interval."""
    order = agreement.get("spearman") or {}
    if order.get("value") is None:
        return "–", ""
    return f"{order['value']:.2f}", f"{order['low']:.2f} to {order['high']:.2f}"


def _networks(data: Mapping[str, Data]) -> str:
    """Whether the other networks put the classes in the same order as the first, where they can be compared."""
    (first, one), *others = data.items()
    found = {name: agreement for name, other in others if (agreement := between(one, other))}
    if not found:
        return ""
    rows = [
        {"marked": False, "cells": [name, *_order(agreement), percent(agreement["worst_share"])]}
        for name, agreement in found.items()
    ]
    names = ("Network", f"Order of the classes as {first}'s", "Interval", "Same worst")
    note = f"Spearman's correlation of robust accuracies by class under {one['attacks'][0]['attack']}."
    return fill("rows.html", parts={"networks": [{"names": names, "rows": rows, "note": note}]}, several=False)


def _table(data: Data) -> dict[str, Any]:
    lowest = min(row["accuracy"] for row in data["classes"])
    rows = []
    for n, row in enumerate(data["classes"]):
        cells = [
            row["class"],
            number(row.get("inputs")),
            percent(row.get("clean")),
            percent(row["accuracy"]),
            interval(row.get("low"), row.get("high")),
            _taken_for(data, n),
            number(row.get("weight_norm")),
        ]
        rows.append({"marked": row["accuracy"] == lowest, "cells": cells})
    return {"names": _COLUMNS, "rows": rows, "note": _note(data)}


def _taken_for(data: Data, n: int) -> str:
    """The wrong class that most of a class's attacked inputs are taken for."""
    confusion, names = data.get("confusion"), data.get("predicted")
    if not confusion or not names:
        return "–"
    index = data["classes"][n].get("index")
    share, k = max((share, k) for k, share in enumerate(confusion[n]) if k != index)
    return f"{names[k]}, {percent(share)}" if share else "–"


def _note(data: Data) -> str:
    parts = []
    if data.get("mcd") is not None and data.get("cv") is not None:
        parts.append(f"Between the best and the worst class: {percent(data['mcd'])}. Variance: {number(data['cv'])}.")
    if data.get("pearson") is not None and data.get("spearman") is not None:
        correlations = f"Pearson {number(data['pearson'])}, Spearman {number(data['spearman'])}"
        parts.append(f"Correlation of robust accuracy with the norm of the class's last weights: {correlations}.")
    groups = data.get("groups") or {}
    if groups.get("within") is not None:
        shares = [f"{name} {percent(share)}" for name, share in groups["by_group"].items() if share is not None]
        parts.append(f"Mistakes that stay within their group: {percent(groups['within'])} ({', '.join(shares)}).")
    return " ".join(parts)
