"""Tables of the page on claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from buttress.claims.seed_statistics import R_AND_G
from buttress.claims.verified import described

_PASSES = (
    "Passes: forward and backward, of each input trained on, over all epochs of the setup, also those that a monitor "
    "may have spared; in brackets, those of one visit to an input as a multiple of standard training's. What a method "
    "trains beforehand is not counted, and one that learns its own inputs (adv-kip) visits these few alone.\n\n"
)

_SAME = "as before"
LATER = " †"  # of a check that was written once its rows had been measured


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def number(value: float | None, signed: bool = False) -> str:
    """Two digits after the point below 2, one above; a dash for none."""
    if value is None:
        return "-"
    digits = 2 if abs(value) < 2 else 1
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def interval(difference: Mapping[str, Any]) -> str:
    """A mean difference with its interval."""
    mean = number(difference["mean"], signed=True)
    if difference["low"] is None:
        return mean
    return f"{mean} ({number(difference['low'], signed=True)} to {number(difference['high'], signed=True)})"


def checks(claim: Mapping[str, Any]) -> str:
    """What must hold: published and measured differences, and the verdicts."""
    labels = list(claim["verdicts"])
    head = ["check", "published", *(part for label in labels for part in (f"{label}: difference", "verdict"))]
    besides = [_beside(check, claim) for check in claim["checks"]]
    lines = []
    for check, beside in zip(claim["checks"], besides, strict=True):
        outcomes = [(interval(check["under"][label]), check["under"][label]["verdict"]) for label in labels]
        if len(set(outcomes)) == 1:  # of a figure, which no attack of the table changes
            outcomes[1:] = [(_SAME, "")] * (len(outcomes) - 1)
        line = [
            check["statement"] + LATER * bool(check.get("later")),
            number(check["published"], signed=True),
            *(p for pair in outcomes for p in pair),
        ]
        lines.append(line + [beside] * any(besides))
    if not any(besides):
        return table(head, lines)
    note = (
        "Beside: how much more accurate the first row is without an attack, on the inputs of the attack that was run "
        "on the most inputs, and how many times as large.\n\n"
    )
    return note + table([*head, "beside"], lines)


def inputs_by_attack(claim: Mapping[str, Any]) -> dict[str, float]:
    """Label of each attack and verifier -> how many inputs it had; infinite for all, or where that is unknown."""
    labels = list(claim["rows"][0]["accuracy"])
    experiment = claim.get("experiment", {})
    entries = [*experiment.get("attacks", ()), *experiment.get("verifiers", ())]
    counts = [entry.get("inputs") or math.inf for entry in entries for _ in entry.get("sources") or (None,)]
    return dict(zip(labels, counts if len(counts) == len(labels) else [math.inf] * len(labels), strict=True))


def attack_with_most_inputs(claim: Mapping[str, Any]) -> str:
    """Label of the attack that was run on most inputs, the first of several: its clean accuracies are most precise."""
    counts = inputs_by_attack(claim)
    return max(counts, key=lambda label: counts[label])


def _beside(check: Mapping[str, Any], claim: Mapping[str, Any]) -> str:
    """How two rows that are compared differ in clean accuracy and in size, where that is known."""
    rows = {row["name"]: row for row in claim.get("rows", ())}
    pair = [rows[name] for name in check.get("rows", ())]
    if not pair:
        return ""
    label = attack_with_most_inputs(claim)
    accuracies = [row["accuracy"][label].get("0") for row in pair]
    parts = []
    if None not in accuracies:
        parts.append(f"clean {number(accuracies[0]['mean'] - accuracies[1]['mean'], signed=True)}")
    sizes = [row.get("parameters") for row in pair]
    if None not in sizes:
        parts.append(f"parameters x {sizes[0] / sizes[1]:.3g}")
    return ", ".join(parts)


def rows(claim: Mapping[str, Any]) -> str:
    """Accuracy of every row, one table for each attack."""
    parts = list[str]()
    columns, has_published = [str(eps) for eps in claim["eps"]], any(row["published"] for row in claim["rows"])
    has_cost, has_size = (
        any("cost" in row for row in claim["rows"]),
        any(row.get("parameters") for row in claim["rows"]),
    )
    for label in claim["rows"][0]["accuracy"]:
        head = ["training", *columns]
        head += [R_AND_G, f"published {R_AND_G} ({claim['verdict_under']})"] if has_published else []
        lines = []
        for row in claim["rows"]:
            accuracy = row["accuracy"][label]
            line = [row["name"], *(_spread(accuracy[column]) for column in columns)]
            if has_published:
                line += [
                    _spread(accuracy[R_AND_G]),
                    "-" if row["published"] is None else f"{sum(row['published']):.1f}",
                ]
            line.append(_spread(row["seconds"]) if "seconds" in row else "-")
            line += [_passes(row.get("cost", {}))] * has_cost
            lines.append(line + [f"{row['parameters']:,}" if row.get("parameters") else "-"] * has_size)
        parts.append(
            f"### Accuracy in percent {described(label)}, by eps\n\nMean over seeds; ± is the standard deviation.\n\n"
            + (_PASSES if has_cost and not parts else "")
            + table([*head, "seconds of training", *["passes"] * has_cost, *["parameters"] * has_size], lines)
        )
    return "\n\n".join(parts)


def _passes(cost: Mapping[str, Any]) -> str:
    """All passes, and what an input costs whenever it is trained on."""
    return "-" if cost.get("passes") is None else f"{cost['passes']:,.0f} ({cost['relative']:.3g} x)"


def errors(claim: Mapping[str, Any]) -> str:
    """Robust error in its two parts, one table for each attack."""
    parts = []
    for label, first in claim["rows"][0]["errors"].items():
        lines = [[row["name"], *(_spread(part) for part in row["errors"][label].values())] for row in claim["rows"]]
        parts.append(
            f"### Natural and boundary error in percent {described(label)}\n\n"
            f"Boundary error: right at eps 0 and not at {max(claim['eps'])}. Mean over seeds; ± is the standard "
            "deviation.\n\n" + table(["training", *first], lines)
        )
    return "\n\n".join(parts)


def _spread(values: Mapping[str, Any]) -> str:
    """A mean with its standard deviation, one digit each."""
    return f"{values['mean']:.1f}" + ("" if values["sd"] is None else f" ± {values['sd']:.1f}")


def figures(claim: Mapping[str, Any]) -> str:
    """What else was measured of every row."""
    names = list(dict.fromkeys(name for row in claim["rows"] for name in row.get("figures", {})))
    lines = [[row["name"], *(_figure(row.get("figures", {}).get(name)) for name in names)] for row in claim["rows"]]
    return "### Other figures\n\nMean over seeds; ± is the standard deviation.\n\n" + table(["training", *names], lines)


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    if "values" in figure:
        texts: list[str] = figure["values"]
        return ", ".join(f"{text} ({texts.count(text)} of {len(texts)})" for text in dict.fromkeys(texts))
    return number(figure["mean"]) + ("" if figure["sd"] is None else f" ± {number(figure['sd'])}")


def pictures(claim: Mapping[str, Any], folder: str) -> str:
    """The pictures of a claim, which are in ``folder`` as seen from the page."""
    parts = ["### Pictures"]
    for name, picture in claim["pictures"].items():
        alt = f"{name}: {', '.join(picture['rows'])}".replace("[", "(").replace("]", ")")
        address = quote(f"{folder}/{picture['file']}")
        parts.append(f"**{name}.** {picture['told']}\n\n![{alt}]({address})")
    return "\n\n".join(parts)


def choices(claim: Mapping[str, Any]) -> str:
    """What was chosen on validation data, and among what."""
    lines = []
    for sweep in claim["sweeps"]:
        scores = ", ".join(f"{_choice_text(entry['choice'])}: {entry['score']:.1f}" for entry in sweep["tried"])
        lines.append([sweep["row"], sweep["by"], _choice_text(sweep["chosen"]["choice"]), scores])
    head = ["row", "chosen by", "chosen", "all scores (higher is better)"]
    return "### Choices on validation data\n\n" + table(head, lines)


def _choice_text(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in choice.items())


def profiles(claim: Mapping[str, Any]) -> str:
    """Mean displacement of every layer, one table for each network and measure; published numbers in brackets."""
    parts = []
    for name, profile in claim["profiles"].items():
        for measure, by_perturbation in profile["displacement"].items():
            lines = []
            for perturbation, values in by_perturbation.items():
                published = profile["published"].get(perturbation) if measure == "relative_error" else None
                cells = [f"{v['mean']:.2f}" + ("" if v["sd"] is None else f" ± {v['sd']:.2f}") for v in values]
                if published is not None:
                    cells = [f"{cell} [{theirs:.2f}]" for cell, theirs in zip(cells, published, strict=True)]
                lines.append([perturbation, *cells])
            title = f"### {name}: {measure.replace('_', ' ')} by layer\n\nMean over seeds; ± is the standard deviation"
            title += "; [published].\n\n" if profile["published"] and measure == "relative_error" else ".\n\n"
            parts.append(title + table(["perturbation", *profile["layers"]], lines))
    return "\n\n".join(parts)
