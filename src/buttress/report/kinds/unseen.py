"""Corruptions, styles and unseen attacks: one table, and the figures that sum it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Key, Section, renderer, share_key
from buttress.report.text import interval, percent
from buttress.threat import budget_text

_KEYS = (
    ("clean", "Clean accuracy", "on the inputs as they are"),
    ("mean_corruption", "Mean corruption accuracy", "over corruptions and severities"),
    ("mean_style", "Mean style accuracy", "over styles and severities"),
    ("seen", "Robust accuracy, seen attacks", "under all of them together"),
    ("unseen", "Robust accuracy, unseen attacks", "under all of them together"),
)
_FAMILIES = ("corruption", "style")


@renderer("unseen")
def unseen(findings: Mapping[str, Finding]) -> Section:
    """Networks below each other; a row for each corruption, style and attack, severities in columns."""
    data = {name: finding.data for name, finding in findings.items() if finding.data}
    severities = sorted({s for d in data.values() for s in d.get("severities", [])})
    tables = {name: _rows(d, severities) for name, d in data.items()}
    html = fill("unseen.html", tables=tables, severities=severities, several=len(data) > 1, facts=_facts(data))
    return Section(html, tuple(_keys(data)))


def _keys(data: Mapping[str, Mapping[str, Any]]) -> list[Key]:
    keys = []
    for part, label, note in _KEYS:
        shares = {name: d[part]["accuracy"] for name, d in data.items() if d.get(part)}
        if shares:
            keys.append(share_key(label, shares, note))
    return keys


def _rows(data: Mapping[str, Any], severities: list[int]) -> list[dict[str, Any]]:
    """The inputs as they are, every corruption and style and their means, every attack."""
    blank = ["–"] * len(severities)
    rows = [_row("as they are", "–", data["clean"], blank)] if data.get("clean") else []
    entries = data.get("rows", [])
    for kind in _FAMILIES:
        for row in entries:
            at = {point["severity"]: percent(point["accuracy"]) for point in row.get("severities", [])}
            if row["kind"] == kind:
                rows.append(_row(row["label"], kind, row, [at.get(s, "–") for s in severities]))
        if data.get(f"mean_{kind}"):
            rows.append(_row(f"all {kind}s", "mean", data[f"mean_{kind}"], blank))
    for row in entries:
        if row["kind"] not in _FAMILIES:
            budget = f" ({row['norm']}, ε = {budget_text(row['eps'])})" if "norm" in row else ""
            rows.append(_row(f"{row['label']}{budget}", row["kind"], row, blank))
    return rows


def _row(label: str, kind: str, figure: Mapping[str, Any], severities: list[str]) -> dict[str, Any]:
    between = interval(figure.get("low"), figure.get("high"))
    return {
        "label": label,
        "kind": kind,
        "accuracy": percent(figure["accuracy"]),
        "interval": between,
        "severities": severities,
    }


def _facts(data: Mapping[str, Mapping[str, Any]]) -> str:
    first: Mapping[str, Any] = next(iter(data.values()), {})
    facts = [f"{first['inputs']:,} inputs"] if "inputs" in first else []
    facts += [f"seed {first['seed']}"] if "seed" in first else []
    facts += [f"intervals: {first['interval']}"] if "interval" in first else []
    return ", ".join(facts)
