"""Randomised smoothing: certified accuracy over the radius, under the attacked one, up to where votes can show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, GREY, SYMBOLS, Trace, figure, fill, line_name, pick
from buttress.report.kinds import Key, Section, renderer, share_key
from buttress.report.text import interval, number, percent, seconds

Data = Mapping[str, Any]


@renderer("smoothing")
def smoothing(findings: Mapping[str, Finding]) -> Section:
    """A step curve for each network and sigma, points under attack, and a table of radii."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("sigmas")}
    if not data:
        return Section("")
    html = fill(
        "smoothing.html",
        plot=_plot(data),
        parts={name: [_summary(entry), _radii(entry)] for name, entry in data.items()},
        notes={name: _note(entry) for name, entry in data.items()},
        several=len(findings) > 1,
    )
    return Section(html, tuple(_keys(data)))


def _keys(data: Mapping[str, Data]) -> list[Key]:
    """Certified accuracy with the best sigma, at 0 and at the middle of the listed radii that all networks have."""
    listed = [[point["radius"] for point in entry["best"]] for entry in data.values()]
    common = [place for place, radius in enumerate(listed[0]) if all(radius in other for other in listed[1:])]
    keys = []
    for place in dict.fromkeys([*common[:1], *common[len(common) // 2 :][:1]]):
        radius = listed[0][place]
        shares = {
            name: next(point["accuracy"] for point in entry["best"] if point["radius"] == radius)
            for name, entry in data.items()
        }
        note = "of the smoothed network, with the best sigma"
        keys.append(share_key(f"Certified at l2 radius {radius:g}", shares, note))
    return keys


def _plot(data: Mapping[str, Data]) -> str:
    traces, ends, several = list[Trace](), list[float](), len(data) > 1
    lines = [(name, entry, row) for name, entry in data.items() for row in entry["sigmas"]]
    for index, (network, entry, row) in enumerate(lines):
        colour, sigma = pick(COLOURS, index), f"σ {row['sigma']:g}"
        traces.append(_steps(row["radii"], entry["inputs"], line_name(network, f"certified, {sigma}", several), colour))
        if row.get("attacked"):
            traces.append(_points(row["attacked"], line_name(network, f"attacked, {sigma}", several), colour, index))
        ends.append(row["ceiling"])
    layout = {
        "xaxis": {"title": {"text": "l2 radius"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "accuracy of the smoothed network"}, "tickformat": ".0%", "range": [-0.02, 1.02]},
        "shapes": [_upright(end) for end in sorted(set(ends))],
        "annotations": [_caption(end) for end in sorted(set(ends))],
    }
    return figure(traces, layout, "Certified accuracy of the smoothed network over the l2 radius")


def _steps(radii: Sequence[float], inputs: int, name: str, colour: str) -> Trace:
    """The share of inputs certified beyond each radius: it falls by one input at each radius that was shown."""
    rising = sorted(radii)
    shares = [(len(rising) - place) / inputs for place in range(len(rising) + 1)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [0, *rising],
        "y": [*shares[:1], *shares[1:]],
        "name": name,
        "line": {"color": colour, "shape": "hv"},
    }


def _points(curve: Sequence[Data], name: str, colour: str, index: int) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [point["eps"] for point in curve],
        "y": [point["accuracy"] for point in curve],
        "name": name,
        "line": {"color": colour, "dash": "dot"},
        "marker": {"symbol": pick(SYMBOLS, index)},
    }


def _upright(radius: float) -> dict[str, Any]:
    line = {"color": GREY, "width": 1, "dash": "dash"}
    return {"type": "line", "x0": radius, "x1": radius, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _caption(radius: float) -> dict[str, Any]:
    text = f"most that the votes can show: {radius:.2f}"
    place = {"x": radius, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom", "showarrow": False}
    return {**place, "text": text, "font": {"color": GREY, "size": 11}}


def _summary(data: Data) -> dict[str, Any]:
    names = ["σ", "Certified", "Interval", "Abstained", "Under noise", "Mean radius", "Ceiling", "Time of votes"]
    timed = any("attack_seconds" in row for row in data["sigmas"])
    names += ["Time of the attack"] if timed else []
    rows = []
    for row in data["sigmas"]:
        first = row["certified"][0]
        cells = [f"{row['sigma']:g}", percent(first["accuracy"]), interval(first.get("low"), first.get("high"))]
        cells += [percent(row.get("abstained")), percent(row.get("noisy_accuracy")), number(row.get("mean_radius"))]
        cells += [number(row.get("ceiling")), seconds(row.get("seconds"))]
        cells += [seconds(row.get("attack_seconds"))] if timed else []
        rows.append({"marked": bool(row.get("contradicted")), "cells": cells})
    return {"names": names, "rows": rows, "note": ""}


def _radii(data: Data) -> dict[str, Any]:
    """A row for each radius, with the certified and the attacked accuracy of each sigma."""
    attacked = [{point["eps"]: point["accuracy"] for point in row.get("attacked", [])} for row in data["sigmas"]]
    names, rows = ["l2 radius"], []
    for row, under in zip(data["sigmas"], attacked, strict=True):
        names += [f"Certified, σ {row['sigma']:g}", *([f"Attacked, σ {row['sigma']:g}"] if under else [])]
    for place, point in enumerate(data["best"]):
        cells = [f"{point['radius']:g}"]
        for row, under in zip(data["sigmas"], attacked, strict=True):
            cells.append(percent(row["certified"][place]["accuracy"]))
            cells += [percent(under.get(point["radius"]))] if under else []
        rows.append({"marked": False, "cells": cells})
    return {"names": names, "rows": rows, "note": ""}


def _note(data: Data) -> str:
    whose = "all certificates of a σ together" if data.get("joint") else "each certificate by itself"
    text = (
        f"{data['inputs']:,} inputs; {data['n0']:,} votes choose a class and {data['n']:,} bound its probability; "
        f"{whose} with probability {1 - data['alpha']:g}. "
    )
    return text + (f"Attack: {data['attack']}." if data.get("attack") else "No attack was run.")
