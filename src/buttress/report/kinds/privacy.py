"""Privacy: how well members are told from others, the gaps, gradients under attack, and what a model of noise says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.audits.privacy.words import known_by
from buttress.report.figures import COLOURS, DASHES, GREY, Trace, figure, fill, line_name, pick
from buttress.report.kinds import Key, Section, renderer
from buttress.report.text import escape_label, interval, number, percent, points

Data = Mapping[str, Any]
Row = list[str]

_STATISTICS = {"max": "largest", "p95": "95th percentile", "mean": "mean"}
_SIDES = ("members", "others")
_GAPS = {"clean": "as they are", "robust": "under attack"}


@renderer("privacy")
def privacy(findings: Mapping[str, Finding]) -> Section:
    """Networks by colour; in the ROC, what is known of an input by dash."""
    data = {name: finding.data for name, finding in findings.items() if finding.data.get("membership")}
    if not data:
        return Section("")
    composed = [entry["composed"] for entry in data.values() if entry.get("composed")]
    html = fill(
        "privacy.html",
        roc=_roc(data),
        histograms=[_histogram(name, entry, len(data) > 1) for name, entry in data.items()],
        noises=[_noise(name, entry, len(data) > 1) for name, entry in data.items() if entry.get("noise")],
        parts={name: list(_tables(entry)) for name, entry in data.items()},
        several=len(findings) > 1,
        assumptions=composed[0]["assumptions"] if composed else [],
    )
    return Section(html, tuple(_keys(data)))


def _keys(data: Mapping[str, Data]) -> Iterator[Key]:
    best = {name: max(found["advantage"] for found in entry["membership"].values()) for name, entry in data.items()}
    yield Key("Membership advantage", {name: percent(value) for name, value in best.items()}, {}, "0% is a guess")
    gaps = {name: points(entry["clean"]["gap"]["difference"]) for name, entry in data.items()}
    yield Key("Generalisation gap", gaps, {}, "training inputs less others")


def _roc(data: Mapping[str, Data]) -> str:
    line = {"color": GREY, "dash": "dot"}
    ends = [0, 1]
    traces: list[Trace] = [{"type": "scatter", "mode": "lines", "x": ends, "y": ends, "name": "a guess", "line": line}]
    for i, (name, entry) in enumerate(data.items()):
        for k, (known, found) in enumerate(entry["membership"].items()):
            x, y = zip(*found["curve"], strict=True)
            line = {"color": pick(COLOURS, i), "dash": pick(DASHES, k)}
            label = line_name(name, known_by(known), len(data) > 1)
            traces.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "name": label, "line": line})
    layout = {
        "xaxis": {"title": {"text": "others called members"}, "range": [0, 1]},
        "yaxis": {"title": {"text": "members called members"}, "range": [0, 1]},
    }
    return figure(traces, layout, "Members found against others taken for members")


def _histogram(network: str, entry: Data, several: bool) -> str:
    bins = entry["confidences"]
    traces = [_bars(bins["middles"], bins[side], line_name(network, side, several), i) for i, side in enumerate(_SIDES)]
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": "log-odds of the true class, log(p / (1 − p))"}},
        "yaxis": {"title": {"text": "share of the inputs"}},
    }
    return figure(traces, layout, "Confidence in the true class, of members and of others", height=320)


def _noise(network: str, entry: Data, several: bool) -> str:
    bins = entry["noise"]["histogram"]
    traces = [_bars(bins["middles"], bins["density"], line_name(network, "noise", several), 0)]
    layout = {
        "xaxis": {"title": {"text": "coordinate of a batch's gradient less the full one's"}, "exponentformat": "power"},
        "yaxis": {"title": {"text": "density"}, "exponentformat": "power"},
    }
    return figure(traces, layout, "Noise of the gradient", height=320)


def _bars(x: list[float], y: list[float], name: str, index: int) -> Trace:
    return {"type": "bar", "x": x, "y": y, "name": name, "opacity": 0.6, "marker": {"color": pick(COLOURS, index)}}


def _tables(entry: Data) -> Iterator[dict[str, Any]]:
    """Membership, gaps, intensity, and what the noise comes to, as far as there are such."""
    names = ["What is known", "Advantage", "Interval", "Right", "AUROC", "Found at 0.1% false", "Found at 1% false"]
    rows = [_inferred(known_by(known), found) for known, found in entry["membership"].items()]
    yield _table(names, rows, "Found at so many others taken for members; none where fewer others cannot tell.")
    gaps = [[words, *_shares(entry[key])] for key, words in _GAPS.items() if entry.get(key)]
    yield _table(["Accuracy", "Members", "Others", "Gap", "Interval, points"], gaps, "")
    intensity = entry["intensity"]
    if intensity.get("clean"):
        names = ["Gradient norm", "As they are", "Under attack", "Intensity", "Interval", "Across runs"]
        yield _table(names, [_norms(intensity, key, words) for key, words in _STATISTICS.items()], "")
    if entry.get("composed"):
        names = ["Model of the noise", "Figure"]
        yield _table(names, list(_composed(entry["noise"], entry["composed"])), "")


def _table(names: list[str], rows: list[Row], note: str) -> dict[str, Any]:
    return {"names": names, "rows": [{"marked": False, "cells": cells} for cells in rows], "note": note}


def _inferred(name: str, found: Data) -> Row:
    words = f"{name} ({found['form']}, {found['references']} references)" if "form" in found else name
    at = [percent(found["at"].get(rate)) for rate in ("0.001", "0.01")]
    shares = [percent(found["advantage"]), interval(found["low"], found["high"]), percent(found["accuracy"])]
    return [escape_label(words), *shares, number(found["auroc"]), *at]


def _shares(part: Data) -> Row:
    gap = part["gap"]
    ends = " to ".join(points(gap[end]).removesuffix(" points") for end in ("low", "high"))
    return [*(percent(part[side]["accuracy"]) for side in _SIDES), points(gap["difference"]), ends]


def _norms(intensity: Data, key: str, words: str) -> Row:
    paired = intensity.get("paired", {}).get(key, {})
    ends = [number(paired[end]) for end in ("low", "high") if end in paired]
    norms = [number(intensity.get(where, {}).get(key)) for where in ("clean", "adversarial")]
    return [words, *norms, number(paired.get("ratio")), "–".join(ends), number(intensity.get("cross_run", {}).get(key))]


def _composed(noise: Data, composed: Data) -> Iterator[Row]:
    yield ["Scale of the noise", number(noise["scale"])]
    yield ["Distance from a Laplace distribution", number(noise["laplace"])]
    yield ["Distance from a normal distribution", number(noise["gaussian"])]
    yield ["eps of a step", number(composed["step_epsilon"])]
    yield [f"eps of {composed['steps']} steps, delta {composed['delta']:g}", number(composed["epsilon"])]
    average, likely = composed["average_gap"], composed["likely_gap"]
    yield ["Gap on average at most, by that", _bound(average)]
    yield [f"Gap at most, with probability {number(likely['probability'])}", _bound(likely["gap"])]


def _bound(value: float | None) -> str:
    """A bound on a difference of shares; one of 1 or more says nothing."""
    return percent(value) if value is not None and value < 0.9995 else "says nothing (100% or more)"
