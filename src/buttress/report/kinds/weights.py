"""The weights of each layer: how far most are next to nothing and few are large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Key, Section, renderer
from buttress.report.text import number, percent

_COLUMNS = ("Layer", "Kind", "Weights", "Kurtosis", "L1 / √n L2", "Below 0.01", "Largest")
_NOTE = (
    "Kurtosis is 3 for normally distributed weights and grows with few large ones. L1 / √n L2 is 1 for weights of one "
    "size and small where a few carry all. Figures compare networks of one architecture."
)


@renderer("weights")
def weights(findings: Mapping[str, Finding]) -> Section:
    """A table of layers per network; the layer of the highest kurtosis is marked."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("layers")}
    parts = {name: [_table(entry["layers"])] for name, entry in data.items()}
    shares = {name: percent(entry["small"]) for name, entry in data.items() if entry.get("small") is not None}
    keys = (Key("Weights below 0.01", shares, {}, "in size, of all layers"),) if shares else ()
    return Section(fill("rows.html", parts=parts, several=len(findings) > 1), keys)


def _table(layers: list[Mapping[str, Any]]) -> dict[str, Any]:
    top = max((row.get("kurtosis") or 0.0 for row in layers), default=0.0)
    rows = [
        {
            "marked": bool(top) and row.get("kurtosis") == top,
            "cells": [
                row["layer"],
                row.get("kind", "–"),
                number(row.get("weights")),
                number(row.get("kurtosis")),
                number(row.get("spread")),
                percent(row.get("small")),
                number(row.get("largest")),
            ],
        }
        for row in layers
    ]
    return {"names": _COLUMNS, "rows": rows, "note": _NOTE}
