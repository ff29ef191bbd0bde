"""In plain words: which checks of a table survive all of its attacks, and how far its figures can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.masking.audit import TESTS, TRUSTWORTHY, Masking
from buttress.audits.masking.checks.paired_attacks import least_gap
from buttress.claims.document_tables import attack_with_most_inputs, inputs_by_attack
from buttress.claims.seed_statistics import CANNOT_FAIL, NOT, REPRODUCED
from buttress.claims.verified import described

_SHOWN = 3  # rows of the largest differences between PGD and a stronger attack

ALWAYS = "Reproduced under every attack"
FIGURES = "Reproduced, of figures that the table's attacks do not change"
SOMETIMES = "Reproduced under some attacks only"
ALIKE = "The claimed sign, alike in every seed, so that there is no interval"
CHANCE = "The claimed sign, which chance may give"
NEVER = "Not even the claimed sign"
REFUTED = "Refuted, by an interval that is wholly on the other side"


def outcome_summary(claim: Mapping[str, Any]) -> str:
    """What is left of a claim, in a few sentences that follow from its results alone.

    Args:
        claim: the result of a table.
    """
    lines = [*_by_outcome(claim["checks"]), *_unmatched(claim), *_appearance(claim), *_masking(claim)]
    return "### What survives\n\n" + "\n".join(f"- {line}" for line in lines)


def _by_outcome(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The checks, sorted by what came of them under all attacks together."""
    outcomes = (ALWAYS, FIGURES, SOMETIMES, ALIKE, CHANCE, NEVER, REFUTED)
    groups: dict[str, list[str]] = {outcome: [] for outcome in outcomes}
    for check in checks:
        differences = {
            label: difference for label, difference in check["under"].items() if difference["verdict"] != CANNOT_FAIL
        }
        if differences:
            outcome, addition = _outcome(differences, check.get("by", 0.0))
            groups[outcome].append(check["statement"] + addition)
    lines = [f"{outcome}: {'; '.join(names)}." for outcome, names in groups.items() if names]
    return lines if groups[ALWAYS] else ["No accuracy is above another under every attack, as claimed.", *lines]


def _outcome(under: Mapping[str, Mapping[str, Any]], by: float) -> tuple[str, str]:
    """One of the outcomes of a difference that is held to exceed ``by``, and what there is to add."""
    reproduced = [label for label, difference in under.items() if difference["verdict"] == REPRODUCED]
    refuted = [
        label for label, difference in under.items() if difference["high"] is not None and difference["high"] < by
    ]
    same = len(under) > 1 and len({(difference["mean"], difference["high"]) for difference in under.values()}) == 1
    if len(reproduced) == len(under):
        return (FIGURES if same else ALWAYS), ""
    where = f"wholly on the other side {described(*refuted)}"
    if reproduced:
        return SOMETIMES, f" {described(*reproduced)}" + (f", and {where}" if refuted else "")
    if refuted:
        return REFUTED, "" if same else f" {described(*refuted)}" * (len(refuted) < len(under))
    if all(difference["verdict"] == NOT for difference in under.values()):
        return NEVER, ""
    return (ALIKE if all(difference["low"] is None for difference in under.values()) else CHANCE), ""


def _unmatched(claim: Mapping[str, Any]) -> list[str]:
    """How far rows that are compared are apart in clean accuracy, at the most."""
    label = attack_with_most_inputs(claim)
    clean = {row["name"]: row["accuracy"][label].get("0") for row in claim["rows"]}
    pairs = [check["rows"] for check in claim["checks"] if "rows" in check]
    apart = {
        (one, other): clean[one]["mean"] - clean[other]["mean"] for one, other in pairs if clean[one] and clean[other]
    }
    if not apart:
        return []
    (one, other), most = max(apart.items(), key=lambda item: abs(item[1]))
    return [
        f"Clean accuracy of rows that are compared, on the inputs of {label}, differs by {abs(most):.1f} points at "
        f"most ({one} and {other})."
    ]


def _appearance(claim: Mapping[str, Any]) -> list[str]:
    """In which rows PGD takes least of what another attack takes that was run on half as many inputs or more."""
    labels = list(claim["rows"][0]["accuracy"])
    reference = next((label for label in labels if label.startswith("PGD") and " from " not in label), None)
    if reference is None or len(labels) == 1 or 0 not in claim["eps"]:
        return []
    eps, gaps, counts = str(max(claim["eps"])), [], inputs_by_attack(claim)
    labels = [label for label in labels if counts[label] >= counts[reference] / 2]  # fewer would add their own chance
    for row in claim["rows"]:
        accuracy = {label: row["accuracy"][label] for label in labels}
        taken = {label: columns["0"]["mean"] - columns[eps]["mean"] for label, columns in accuracy.items()}
        strongest = max(taken, key=lambda label: taken[label])
        gaps.append((taken[strongest] - taken[reference], row["name"], taken[reference], taken[strongest], strongest))
    worst = [one for one in sorted(gaps, key=lambda one: -one[0])[:_SHOWN] if round(one[0], 1) > 0]
    if not worst:
        return [f"No attack of the table takes more accuracy at eps {float(eps):.3g} than {reference}."]
    text = "; ".join(f"{name} {low:.1f} and {high:.1f} ({label})" for _, name, low, high, label in worst)
    here = f"{reference} takes at eps {float(eps):.3g}"
    return [
        f"Points of accuracy that {here}, and that the table's strongest attack takes from its own inputs, where they "
        f"are furthest apart: {text}."
    ]


def _masking(claim: Mapping[str, Any]) -> list[str]:
    """What the masking verdicts of a table found, and which gaps so few inputs could not show."""
    lines = []
    for name, figure in claim.get("experiment", {}).get("figures", {}).items():
        tree = figure.get("audit")
        options: dict[str, Any] = {"name": tree} if isinstance(tree, str) else dict(tree or {})
        if options.get("name") != "masking" or figure["path"] != "verdict":
            continue
        audit = Masking(**{key: options[key] for key in ("level", "floor", "tolerated", "inputs") if key in options})
        inputs = min(audit.inputs, figure.get("inputs") or audit.inputs)
        gap = least_gap(inputs, level=audit.level / TESTS, floor=audit.floor, tolerated=audit.tolerated)
        visible = "no gap at all" if gap is None else f"no gap below {100 * gap:.0f} points"
        verdicts = {row["name"]: row["figures"].get(name, {}).get("values", ()) for row in claim["rows"]}
        counts = {row: sum(verdict != TRUSTWORTHY for verdict in values) for row, values in verdicts.items()}
        doubted = [f"{row} ({count} of {claim['seeds']})" for row, count in counts.items() if count]
        doubts = f"doubts {', '.join(doubted)}" if doubted else "doubts no row"
        lines.append(f'The verdict "{name}", on {inputs} inputs, {doubts}; it can show {visible} to a costlier attack.')
    return lines
