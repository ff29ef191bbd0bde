"""Which audits were asked: how long they took, and why others were not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Section, renderer
from buttress.report.kinds.table import nested

_NOTE = (
    "An estimate is what an audit says that it does to the network, at most, times the time of a pass; examples that "
    "another audit had crafted before cost it nothing. What was left out is asked by its name: --audits NAME."
)


@renderer("plan")
def plan(findings: Mapping[str, Finding]) -> Section:
    """A table of audits per network."""
    parts = {name: nested([_row(row) for row in finding.data.get("rows", [])]) for name, finding in findings.items()}
    return Section(fill("plan.html", parts=parts, several=len(findings) > 1, note=_NOTE))


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    seconds = {
        title: None if row.get(name) is None else f"{row[name]:.1f} s"
        for title, name in (("Estimated", "estimate"), ("Took", "seconds"))
    }
    return {"Audit": row.get("audit"), "What came of it": row.get("state"), **seconds, "Why": row.get("reason")}
