"""Accuracy over budgets: curves with their intervals, and a table with scores and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, DASHES, GREY, SYMBOLS, Trace, figure, fill, line_name, pick, rgba
from buttress.report.kinds import Key, Section, renderer, share_key
from buttress.report.text import escape_label, interval, number, percent, points, seconds
from buttress.threat import budget_text

Point = Mapping[str, Any]
_ALL = "all attacks together"
_MARKED = 20  # points that can be told apart on a line


@renderer("robustness")
def robustness(findings: Mapping[str, Finding]) -> Section:
    """Networks by colour, attacks by dash."""
    data = {name: finding.data for name, finding in findings.items()}
    norms = list(dict.fromkeys(a.get("norm", "") for d in data.values() for a in d.get("attacks", [])))
    plots = [_curves(data, norm, together=len(norms) == 1) for norm in norms]
    tables = {name: _rows(d) for name, d in data.items() if d.get("attacks")}
    below = {name: _below(d) for name, d in data.items()}
    values = {"facts": _facts(data), "several": len(data) > 1, "below": {k: v for k, v in below.items() if any(v)}}
    return Section(fill("robustness.html", plots=plots, tables=tables, **values), tuple(_keys(data)))


def worst(data: Mapping[str, Any]) -> Sequence[Point]:
    """Accuracy under all attacks together; without such figures, the lowest of the attacks' at each budget."""
    if data.get("worst"):
        curve: Sequence[Point] = data["worst"]
        return curve
    lowest: dict[float, Point] = {}
    for point in (p for attack in data.get("attacks", []) for p in attack["curve"]):
        lowest_point = lowest.get(point["eps"])
        if lowest_point is None or point["accuracy"] < lowest_point["accuracy"]:
            lowest[point["eps"]] = point
    return [lowest[eps] for eps in sorted(lowest)]


def _at(curve: Sequence[Point], eps: float | None) -> Point | None:
    return next((p for p in curve if eps is not None and math.isclose(p["eps"], eps, abs_tol=1e-9)), None)


def _keys(data: Mapping[str, Mapping[str, Any]]) -> list[Key]:
    """Clean and robust accuracy; no change between networks that were attacked with different budgets."""
    curves = {name: worst(d) for name, d in data.items()}
    clean = {name: _at(curve, 0.0) for name, curve in curves.items()}
    robust = {name: _at(curve, data[name].get("main_eps")) for name, curve in curves.items()}
    keys, score = [], _score(data)
    if shares := {name: point["accuracy"] for name, point in clean.items() if point}:
        keys.append(share_key(f"Clean {score}", shares, "on the inputs as they are"))
    if shares := {name: point["accuracy"] for name, point in robust.items() if point}:
        attacks = list(dict.fromkeys(a["label"] for d in data.values() for a in d.get("attacks", [])))
        key = share_key(f"Robust {score}", shares, f"under {' and '.join(attacks)}")
        if len(budgets := {data[name]["main_eps"] for name in shares}) == 1:
            key = replace(key, note=f"{key.note}, ε = {budget_text(budgets.pop())}")
        else:
            key = replace(key, note=f"{key.note}, each at its own main ε", changes={})
        keys.append(key)
    return keys + _median_keys(data)


def _median_keys(data: Mapping[str, Mapping[str, Any]]) -> list[Key]:
    """The median of the smallest distances that any attack found; a change to infinity is not reported."""
    medians = {name: median for name, d in data.items() if (median := _median(d)) is not None}
    if not medians:
        return []
    rows = [attack for d in data.values() for attack in d.get("attacks", []) if attack.get("distances")]
    labels = " and ".join(dict.fromkeys(attack["label"] for attack in rows))
    norms = ", ".join(dict.fromkeys(attack.get("norm", "") for attack in rows))
    texts = {name: number(median) for name, median in medians.items()}
    return [Key(f"Median distance ({norms})", texts, {}, f"to the nearest adversarial example, at most; by {labels}")]


def _median(entry: Mapping[str, Any]) -> float | None:
    """The median distance of a finding or of one attack in it; infinity comes back from a file as a text."""
    return _figure(entry.get("distances") or {}, "median")


def _figure(entry: Mapping[str, Any], key: str) -> float | None:
    return None if entry.get(key) is None else float(entry[key])


def _curves(data: Mapping[str, Mapping[str, Any]], norm: str, *, together: bool) -> str:
    traces: list[Trace] = []
    score = _score(data)
    for n, (network, entry) in enumerate(data.items()):
        attacks = [a for a in entry.get("attacks", []) if a.get("norm", "") == norm]
        # A minimum-norm attack gives robust accuracy at every budget, not only at those of the audit.
        lines = [(a["label"], (a.get("distances") or {}).get("curve") or a["curve"]) for a in attacks]
        colour, several = pick(COLOURS, n), len(data) > 1
        if together and len(lines) > 1:
            traces += _line(line_name(network, _ALL, several), worst(entry), colour, score, index=None)
        for i, (label, curve) in enumerate(lines):
            traces += _line(line_name(network, label, several), curve, colour, score, i)
    mains = sorted({d["main_eps"] for d in data.values() if d.get("main_eps") and math.isfinite(d["main_eps"])})
    layout = {
        "xaxis": {
            "title": {"text": escape_label(f"budget ε ({norm})" if norm else "budget ε")},
            "rangemode": "tozero",
            **_ticks(data),
        },
        "yaxis": {"title": {"text": score}, "tickformat": ".0%", "range": [-0.02, 1.02]},
        "shapes": [_upright(eps) for eps in mains],
        "annotations": [_caption(eps) for eps in mains],
    }
    return figure(traces, layout, f"{score[0].upper()}{score[1:]} over the budget of {norm} attacks")


def _score(data: Mapping[str, Mapping[str, Any]]) -> str:
    """What the share of right outputs is called; "accuracy" where there are classes, or tasks differ."""
    names = {str(entry.get("score", "accuracy")) for entry in data.values()}
    return names.pop() if len(names) == 1 else "accuracy"


def _upright(eps: float) -> dict[str, Any]:
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    return {"type": "line", "layer": "between", "line": line, "x0": eps, "x1": eps, "yref": "paper", "y0": 0, "y1": 1}


def _caption(eps: float) -> dict[str, Any]:
    place = {"x": eps, "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
    return {**place, "text": f"main ε = {budget_text(eps)}", "font": {"size": 12}}


def _ticks(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The budgets as people write them, unless there are too many for an axis."""
    points = (p for d in data.values() for attack in d.get("attacks", []) for p in attack["curve"])
    budgets = {p["eps"] for p in points if math.isfinite(p["eps"])}
    return (
        {"tickvals": sorted(budgets), "ticktext": [budget_text(e) for e in sorted(budgets)]}
        if len(budgets) <= 10
        else {}
    )


def _line(name: str, curve: Sequence[Point], colour: str, score: str, index: int | None) -> list[Trace]:
    """A curve and its band; without an index the broad line beneath those of the single attacks.

    An infinite budget has no place on the axis: it is in the table.
    """
    curve = [p for p in curve if math.isfinite(p["eps"])]
    x, y = [p["eps"] for p in curve], [p["accuracy"] for p in curve]
    ranges = [interval(p.get("low"), p.get("high")) for p in curve]
    hover = [
        f"<b>{name}</b><br>ε = {budget_text(p['eps'])}<br>{score} {percent(p['accuracy'])}"
        + (f"<br>interval {between}" if between else "")
        for p, between in zip(curve, ranges, strict=True)
    ]
    line: Trace = {
        "type": "scatter",
        "mode": "lines" if index is None or len(curve) > _MARKED else "lines+markers",
        "x": x,
        "y": y,
        "name": name,
        "legendgroup": name,
        "hoverinfo": "text",
        "hovertext": hover,
        "line": {"color": rgba(colour, 0.35), "width": 8},
    }
    if index is not None:
        line["line"] = {"color": colour, "width": 2, "dash": pick(DASHES, index)}
        line["marker"] = {"size": 7, "symbol": pick(SYMBOLS, index)}
    if not all(ranges):
        return [line]
    band: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": x + x[::-1],
        "y": [p["high"] for p in curve] + [p["low"] for p in curve][::-1],
        "fill": "toself",
        "fillcolor": rgba(colour, 0.13),
        "line": {"width": 0},
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    return [band, line]


def _rows(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row per attack, one for all of them, and one per noise."""
    eps = data.get("main_eps")
    rows = []
    for attack in data.get("attacks", []):
        clean, main = _at(attack["curve"], 0.0), _at(attack["curve"], eps)
        label = f"{attack['label']} ({attack['norm']})" if attack.get("norm") else attack["label"]
        rows.append(_row(label, clean, main, attack, attack.get("r_and_g")))
    curve = worst(data)
    if len(rows) > 1:
        score = 100 * sum(point["accuracy"] for point in curve)
        rows.append(_row(_ALL, _at(curve, 0.0), _at(curve, eps), {}, score))
    for noise in data.get("noises", []):
        rows.append(_row(noise["label"], _at(curve, 0.0), noise, noise, None))
    return rows


def _row(
    label: str, clean: Point | None, main: Point | None, cost: Mapping[str, Any], score: float | None
) -> dict[str, str]:
    return {
        "label": label,
        "clean": percent(clean["accuracy"] if clean else None),
        "main": percent(main["accuracy"] if main else None),
        "interval": interval(main.get("low"), main.get("high")) if main else "",
        "score": "–" if score is None else f"{score:.1f}",
        "forwards": number(cost.get("forwards")),
        "backwards": number(cost.get("backwards")),
        "seconds": seconds(cost.get("seconds")),
        "total": seconds((cost.get("total") or {}).get("seconds")),
    }


def _below(data: Mapping[str, Any]) -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """Rows of three smaller tables: distances, paired differences, and the parts of composed attacks."""
    distances = [
        [attack["label"], number(_median(attack)), _between(entry), f"{entry['found']:,} of {entry['right']:,}"]
        for attack in data.get("attacks", [])
        if (entry := attack.get("distances"))
    ]
    pairs = [
        [
            f"{pair['second']} against {pair['first']}",
            points(pair["difference"]),
            f"{points(pair['low'])} to {points(pair['high'])}",
            f"{pair['gained']:,} / {pair['lost']:,}",
            number(pair["p"]),
        ]
        for pair in data.get("paired") or []
    ]
    stages = [
        [
            f"{attack['label']}: {stage['name']}",
            f"{stage['entered']:,}",
            f"{stage['beaten']:,}",
            *(number(stage[kind] / max(1, stage["entered"])) for kind in ("forwards", "backwards")),
        ]
        for attack in data.get("attacks", [])
        for stage in attack.get("stages") or []
    ]
    return distances, pairs, stages


def _between(entry: Mapping[str, Any]) -> str:
    return f"{number(_figure(entry, 'low'))} to {number(_figure(entry, 'high'))}"


def _facts(data: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(data.values()))
    facts = [f"{first['inputs']:,} inputs"] if "inputs" in first else []
    facts += [f"seed {first['seed']}"] if "seed" in first else []
    facts += [f"search in {first['precision']}, verdicts in float32"] if "precision" in first else []
    facts += [f"intervals: {first['interval']}"] if "interval" in first else []
    facts += (
        ["inputs with an adversarial example at a smaller budget are not attacked again at a larger one"]
        if first.get("reuse")
        else []
    )
    return ", ".join(facts)
