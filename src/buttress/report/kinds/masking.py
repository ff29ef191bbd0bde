"""Whether a figure can be trusted: every check with its verdict and numbers, and what to run next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Key, Section, renderer
from buttress.report.kinds.table import table
from buttress.report.text import number, percent

_MOODS = {"pass": "good", "warn": "warning", "fail": "bad", "not run": "info"}
_WORDS = {"pass": "Pass", "warn": "Warning", "fail": "Fail", "not run": "Not run"}


@renderer("masking")
def masking(findings: Mapping[str, Finding]) -> Section:
    """A table of checks for each network; findings of this kind that hold no checks' verdicts as plain tables."""
    data = {name: finding.data for name, finding in findings.items()}
    if not all("verdict" in entry and "checks" in entry for entry in data.values()):
        return table(findings)
    tables = {name: [_row(check) for check in entry["checks"]] for name, entry in data.items()}
    html = fill("masking.html", tables=tables, facts={n: _facts(d) for n, d in data.items()}, several=len(findings) > 1)
    return Section(html, tuple(_keys(data)))


def _keys(data: Mapping[str, Mapping[str, Any]]) -> list[Key]:
    """The verdict on the figure, in words."""
    verdicts = {name: str(entry["verdict"]) for name, entry in data.items()}
    attacks = list(dict.fromkeys(str(entry["attack"]) for entry in data.values()))
    return [Key("The figure is", verdicts, {}, f"robust accuracy under {' and '.join(attacks)}")]


def _row(check: Mapping[str, Any]) -> dict[str, Any]:
    figures = [f"{name.replace('_', ' ')} {number(value)}" for name, value in check["figures"].items()]
    return {
        **check,
        "mood": _MOODS[check["verdict"]],
        "word": _WORDS[check["verdict"]],
        "figures": ", ".join(figures),
        "comparisons": [_comparison_text(comparison) for comparison in check["comparisons"]],
    }


def _comparison_text(comparison: Mapping[str, Any]) -> str:
    """Both accuracies, and the inputs in which they differ."""
    shares = [percent(comparison[key] / comparison["inputs"]) for key in ("standing", "reference_standing")]
    return (
        f"{comparison['challenger']} leaves {shares[0]}, {comparison['reference']} {shares[1]}; "
        f"only the first is successful on {comparison['won']}, only the second on {comparison['lost']} "
        f"(p = {number(comparison['p'])})"
    )


def _facts(data: Mapping[str, Any]) -> str:
    return (
        f"{data['inputs']:,} inputs, seed {data['seed']}; {data['tests']} exact one-sided tests share a level of "
        f"{data['level']:g} (Bonferroni); attacks that should be weaker count from a surplus of "
        f"{percent(data['floor'])} on, more effort above {percent(data['tolerated'])}"
    )
