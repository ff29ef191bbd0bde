"""Single inputs: brackets, the hardest and the easiest, groups of failures, labels, and the inputs of each class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.drill_down import anchor
from buttress.report.figures import COLOURS, Trace, figure, fill, line_name, pick
from buttress.report.kinds import Section, renderer
from buttress.report.kinds.examples import embedded_png
from buttress.report.text import number, percent

Data = Mapping[str, Any]
_STEPS = 200  # of a curve


@renderer("inputs")
def inputs(findings: Mapping[str, Finding]) -> Section:
    """The share of inputs over the size of perturbation, and lists of inputs with small pictures, each held once."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("cards") is not None}
    if not data:
        return Section("")
    several = len(findings) > 1
    networks = {name: _network(name, entry) for name, entry in data.items()}
    return Section(_curves(data, several) + fill("inputs.html", networks=networks, several=several))


def _curves(data: Mapping[str, Data], several: bool) -> str:
    """By network: the share of inputs that nothing found makes wrong, and of those that are certified."""
    traces: list[Trace] = []
    for n, (network, entry) in enumerate(data.items()):
        for key, what, dash in (("smallest", "stands so far", "solid"), ("certified", "certified", "dash")):
            sizes = entry["measured"].get(key)
            if not sizes:
                continue
            x, y = _survival([math.inf if size in ("inf", None) else float(size) for size in sizes])
            line = {"color": pick(COLOURS, n), "dash": dash, "shape": "hv"}
            name = line_name(network, what, several)
            traces.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": line})
    if not any(trace["x"] for trace in traces):
        return ""
    norm = next(iter(data.values()))["norm"]
    layout = {
        "xaxis": {"title": {"text": f"size of the perturbation ({norm})"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "share of the inputs searched"}, "range": [0, 1.02], "tickformat": ".0%"},
    }
    return figure(traces, layout, "Share of inputs that stand, over the size of the perturbation", height=340)


def _survival(sizes: list[float]) -> tuple[list[float], list[float]]:
    """The share of sizes that are larger than x, at each of at most 200 of them and at 0."""
    finite = sorted(size for size in sizes if size < math.inf)
    places = range(0, len(finite), max(1, math.ceil(len(finite) / _STEPS)))
    x = sorted({0.0, *(finite[k] for k in places), *finite[-1:]})
    return x, [sum(size > at for size in sizes) / len(sizes) for at in x]


def _network(name: str, data: Data) -> dict[str, Any]:
    """Texts of one network's lists."""
    cards = {i: _card(name, i, card) for i, card in data["cards"].items()}

    def shown(ids: Iterable[int]) -> list[dict[str, Any]]:
        return [cards[str(i)] for i in ids if str(i) in cards]

    labels = data.get("labels") or {}
    suspects = [
        {**cards[str(one["id"])], "suggested": one["suggested"]}
        for one in labels.get("suspects", [])
        if str(one["id"]) in cards
    ]
    by_class = [
        {
            "anchor": anchor(name, "class", entry["class"]),
            "title": f"{entry['class']}: {entry['failing']} of {entry['inputs']} fail",
            "cards": shown(entry["ids"]),
        }
        for entry in data.get("by_class", [])
    ]
    by_layer = [
        {"anchor": anchor(name, "layer", entry["layer"]), "title": entry["layer"], "cards": shown(entry["ids"])}
        for entry in data.get("by_layer", [])
    ]
    return {
        "cards": cards,
        "notes": _notes(data),
        "lists": [
            ("Hardest: right, but nearest to failing", shown(data["hardest"])),
            ("Easiest: farthest from failing", shown(data["easiest"])),
        ],
        "groups": [{**group, "cards": shown(group["ids"])} for group in data.get("groups", [])],
        "features": data.get("features"),
        "silhouette": number(data["silhouette"], 2) if data.get("silhouette") is not None else None,
        "suspects": suspects,
        "suspected": labels.get("count", 0),
        "rate": percent(labels.get("rate")),
        "folded": [
            (title, [entry for entry in entries if entry["cards"]])
            for title, entries in (
                ("Inputs that fail, class by class", by_class),
                ("Inputs that displace each layer most", by_layer),
            )
        ],
    }


def _card(network: str, i: str, card: Data) -> dict[str, Any]:
    picture = embedded_png(card.get("picture"))
    values = ", ".join(number(value) for value in card.get("values", []))
    more = ", …" if card.get("length", 0) > len(card.get("values", [])) else ""
    sizes = {what: _size(card.get(what)) for what in ("smallest", "certified")}
    return {
        "id": i,
        "anchor": anchor(network, "picture", i),
        "picture": picture,
        "values": values + more,
        "suggested": None,
        "truth": card["truth"],
        "answer": card["answer"],
        "right": card["right"],
        "attacked": card["attacked"],
        "robust": card["robust"],
        "confidence": percent(card["confidence"]) if "confidence" in card else "",
        "margin": number(card["margin"]) if card.get("margin") is not None else None,
        **sizes,
    }


def _size(value: float | str | None) -> str | None:
    """A size as text; None where it was not searched."""
    return None if value is None else "none found" if value in ("inf", math.inf) else number(float(value))


def _notes(data: Data) -> list[str]:
    measured = data["measured"]
    notes = [
        f"Smallest perturbation: of {len(measured['ids']):,} inputs, the smallest that any of these found: "
        f"{', '.join(measured['attacks']) or 'none'}."
    ]
    notes += [f"{attack} did not search: {reason}." for attack, reason in measured.get("left_out", {}).items()]
    if measured.get("unknown"):
        notes.append(f"The lower end is not known: {measured['unknown']}.")
    return notes
