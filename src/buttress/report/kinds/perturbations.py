"""One step against many: accuracies, their gap, and how the perturbations' cosines spread."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, DASHES, Trace, figure, fill, pick
from buttress.report.kinds import Section, renderer
from buttress.report.text import escape_label, interval, number, percent, points


@renderer("perturbations")
def perturbations(findings: Mapping[str, Finding]) -> Section:
    """A line of figures per network, and a curve of its cosines."""
    known = {name: finding.data for name, finding in findings.items() if finding.data.get("attacks")}
    rows = [[name, *_figures(data)] for name, data in known.items()]
    labels = [str(row["label"]) for row in next(iter(known.values()), {}).get("attacks", [])]
    html = fill("perturbations.html", rows=rows, labels=labels, plot=_plot(known), several=len(findings) > 1)
    return Section(html)


def _figures(data: Mapping[str, Any]) -> list[str]:
    accuracies = [_figure_text(percent(row["accuracy"]), row) for row in data["attacks"]]
    gap, cosine = data.get("gap", {}), data.get("cosine", {})
    span = [gap.get("low"), gap.get("high")]
    between = (
        ""
        if None in span
        else f" ({points(span[0]).removesuffix(' points')} to {points(span[1]).removesuffix(' points')})"
    )
    difference = "–" if gap.get("difference") is None else points(gap["difference"]) + between
    ends = [cosine.get("low"), cosine.get("high")]
    around = "" if None in ends else f" ({number(ends[0])} to {number(ends[1])})"
    return [*accuracies, difference, number(cosine.get("mean")) + around, number(cosine.get("undefined"))]


def _figure_text(text: str, row: Mapping[str, Any]) -> str:
    between = interval(row.get("low"), row.get("high"))
    return f"{text} ({between})" if between else text


def _plot(known: Mapping[str, Mapping[str, Any]]) -> str:
    traces = []
    for i, (name, data) in enumerate(known.items()):
        edges, counts = data.get("histogram", {}).get("edges", []), data.get("histogram", {}).get("counts", [])
        if not sum(counts):
            continue
        trace: Trace = {
            "type": "scatter",
            "mode": "lines",
            "x": [(low + high) / 2 for low, high in pairwise(edges)],
            "y": [count / sum(counts) for count in counts],
            "name": escape_label(name),
            "line": {"color": pick(COLOURS, i), "dash": pick(DASHES, i), "shape": "hvh"},
        }
        traces.append(trace)
    layout = {
        "xaxis": {"title": {"text": "cosine of the two perturbations"}, "range": [-1, 1]},
        "yaxis": {"title": {"text": "share of inputs"}, "tickformat": ".0%", "rangemode": "tozero"},
        "showlegend": len(traces) > 1,
    }
    return figure(traces, layout, "Cosines between one step and many", height=280) if traces else ""
