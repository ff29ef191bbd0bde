"""Layer effects in words and tables: which measure of a layer foretells what, by architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from buttress.claims.document_tables import interval, number, table


def effects_summary(claim: Mapping[str, Any]) -> str:
    """By effect, the measures that foretell it, those that foretell the contrary, and those that tell nothing."""
    lines = []
    for effect, by_measure in claim["correlations"].items():
        found = {name: groups["all"] for name, groups in by_measure.items() if not math.isnan(groups["all"]["mean"])}
        order = sorted(found, key=lambda measure: -found[measure]["mean"])
        above = [m for m in order if found[m]["low"] is not None and found[m]["low"] > 0]
        below = [m for m in order if found[m]["high"] is not None and found[m]["high"] < 0]
        rest = [m for m in order if m not in above and m not in below]
        parts = [
            f"{what} {', '.join(_with_mean(name, found[name]) for name in names)}"
            for what, names in (("foretold by", above), ("contrary to", below), ("not told by", rest))
            if names
        ]
        lines.append(f"- {effect}: {'; '.join(parts)}.")
    return "### Which measure foretells what?\n\nMean rank correlation over the networks.\n\n" + "\n".join(lines)


def effects_tables(claim: Mapping[str, Any]) -> str:
    """Rank correlations by effect, measure and architecture; what strengthening did; and the networks."""
    parts = []
    for effect, by_measure in claim["correlations"].items():
        groups = list(next(iter(by_measure.values())))
        lines = [[measure, *(_cell(found[group]) for group in groups)] for measure, found in by_measure.items()]
        parts.append(
            f"### Rank correlation with {effect}\n\nOver the layers of a network; the mean over networks, with its "
            "95 % interval over seeds, and in how many networks it is positive; those whose layers are all alike have "
            "none.\n\n" + table(["measure", *groups], lines)
        )
    lines = [
        [name, layer, interval(change)]
        for name, layers in claim["strengthened"].items()
        for layer, change in layers.items()
    ]
    parts.append(
        "### Robust accuracy gained by strengthening one layer\n\nIn points over the same training without.\n\n"
        + table(["network", "layer", "gain"], lines)
    )
    lines = [
        [name, training, *(f"{entry[key]['mean']:.1f}" for key in ("clean", "robust", "beaten"))]
        for name, trainings in claim["networks"].items()
        for training, entry in trainings.items()
    ]
    head = ["network", "training", "accuracy", "robust accuracy", "inputs patched"]
    parts.append(
        "### The networks\n\nAccuracies in percent, and how many beaten inputs were patched: means over seeds.\n\n"
        + table(head, lines)
    )
    return "\n\n".join(parts)


def _with_mean(measure: str, found: Mapping[str, Any]) -> str:
    return f"{measure} ({number(found['mean'], signed=True)})"


def _cell(found: Mapping[str, Any]) -> str:
    if math.isnan(found["mean"]):
        return "-"
    return f"{interval(found)}, {found['positive']} of {found['networks']}"
