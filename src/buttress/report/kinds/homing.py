"""Homing: for each class and each class that its inputs are moved into, how many stand once that one is removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Section, renderer, share_key
from buttress.report.text import interval, number, percent, points_between

Data = Mapping[str, Any]
_COLUMNS = ("Class", "Moved into", "Inputs", "Stand without it", "Interval", "Control", "Without the control", "Others")


@renderer("homing")
def homing(findings: Mapping[str, Finding]) -> Section:
    """A table for each network, the pairs with most inputs first, and the rate over all of them as a key figure."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("rows")}
    if not data:
        return Section("")
    parts = {name: [{"names": _COLUMNS, "rows": _rows(d), "note": _note(d)}] for name, d in data.items()}
    rates = {name: d["all"]["accuracy"] for name, d in data.items()}
    key = share_key("Come home", rates, "stand once the class that they were moved into is removed")
    return Section(fill("rows.html", parts=parts, several=len(findings) > 1), (key,))


def _rows(data: Data) -> list[dict[str, Any]]:
    pairs = sorted(data["rows"], key=lambda row: -int(row["inputs"]))
    rows = [_row(row["class"], row["confound"], row, row.get("control_class")) for row in pairs]
    return [*rows, _row("all", "all", data["all"], None)]


def _row(name: str, confound: str, rates: Data, control: str | None) -> dict[str, Any]:
    like = rates.get("control") or {}
    cells = [
        name,
        confound,
        number(rates["inputs"]),
        percent(rates["accuracy"]),
        interval(rates.get("low"), rates.get("high")),
        control or "–",
        percent(like.get("accuracy")),
        percent(rates.get("others")),
    ]
    return {"marked": False, "cells": cells}


def _note(data: Data) -> str:
    beyond = data.get("beyond_others")
    if beyond is None:
        return "There is no network without another class to compare with."
    return (
        "The control is the removed class whose robustness is nearest to that of the class moved into; others are all "
        "removed classes but that one and the input's own, on average. Against these: "
        f"{points_between(beyond)}. Intervals are over inputs, not over trainings."
    )
