"""Certified accuracy and accuracy under attack over budgets, and the band between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, Trace, figure, fill, line_name, pick, rgba
from buttress.report.kinds import Section, renderer, share_key
from buttress.report.text import interval, percent, seconds
from buttress.threat import budget_text

_NAMED = 5  # crossings whose inputs are named


@renderer("certificates")
def certificates(findings: Mapping[str, Finding]) -> Section:
    """One colour a network."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("curve")}
    if not data:
        return Section("")
    html = fill(
        "certificates.html",
        plot=_plot(data),
        tables={name: [_row(row) for row in entry["curve"]] for name, entry in data.items()},
        crossings={name: _crossings(entry) for name, entry in data.items()},
        several=len(data) > 1,
        facts=_facts(next(iter(data.values()))),
    )
    shares = {name: entry["curve"][-1]["certified"]["accuracy"] for name, entry in data.items()}
    entry = next(iter(data.values()))
    budgets = {row["curve"][-1]["eps"] for row in data.values()}
    note = f"by {' and '.join(entry['verifiers'])}, {entry['norm']} ε = {budget_text(entry['curve'][-1]['eps'])}"
    keys = (share_key("Certified accuracy", shares, note),) if len(budgets) == 1 else ()
    return Section(html, keys)


def _plot(data: Mapping[str, Mapping[str, Any]]) -> str:
    traces = list[Trace]()
    for n, (name, entry) in enumerate(data.items()):
        clean = entry["clean"]["accuracy"]
        x = [0.0, *(row["eps"] for row in entry["curve"])]
        low = [clean, *(row["certified"]["accuracy"] for row in entry["curve"])]
        high = [clean, *(row["attacked"]["accuracy"] for row in entry["curve"])]
        colour, several = pick(COLOURS, n), len(data) > 1
        band: Trace = {
            "type": "scatter",
            "mode": "lines",
            "x": x + x[::-1],
            "y": high + low[::-1],
            "fill": "toself",
            "fillcolor": rgba(colour, 0.13),
            "line": {"width": 0},
            "showlegend": False,
            "hoverinfo": "skip",
        }
        traces.append(band)
        for what, y, dash in ((f"under {entry['attack']}", high, "dash"), ("certified", low, "solid")):
            label = line_name(name, what, several)
            told = [f"ε = {budget_text(eps)}<br>{percent(share)}" for eps, share in zip(x, y, strict=True)]
            line: Trace = {
                "type": "scatter",
                "mode": "lines+markers",
                "x": x,
                "y": y,
                "name": label,
                "line": {"color": colour, "dash": dash, "width": 2},
                "hoverinfo": "text",
                "hovertext": [f"<b>{label}</b><br>{text}" for text in told],
            }
            traces.append(line)
    norm = next(iter(data.values()))["norm"]
    layout = {
        "xaxis": {"title": {"text": f"budget ε ({norm})"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "accuracy"}, "tickformat": ".0%", "range": [-0.02, 1.02]},
    }
    return figure(traces, layout, "Certified accuracy and accuracy under attack, over the budget")


def _row(row: Mapping[str, Any]) -> list[str]:
    certified, attacked = row["certified"], row["attacked"]
    by = ", ".join(f"{name} {count:,}" for name, count in row["by"].items())
    return [
        budget_text(row["eps"]),
        f"{percent(certified['accuracy'])} ({interval(certified['low'], certified['high'])})",
        f"{percent(attacked['accuracy'])} ({interval(attacked['low'], attacked['high'])})",
        percent(max(0.0, attacked["accuracy"] - certified["accuracy"])),
        by or "–",
        seconds(row["seconds"]),
    ]


def _crossings(entry: Mapping[str, Any]) -> str:
    found = [f"input {row['id']} at ε = {budget_text(row['eps'])}" for row in entry.get("crossings", [])]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _facts(entry: Mapping[str, Any]) -> str:
    return f"{entry['inputs']:,} inputs, seed {entry['seed']}; intervals: {entry['interval']}."
