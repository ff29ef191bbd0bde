"""How much each block stretches small changes, beside what became of real ones and the layer profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import COLOURS, DASHES, Trace, figure, fill, line_name, pick
from buttress.report.kinds import Key, Section, renderer
from buttress.report.text import escape_label, number, percent

Data = Mapping[str, Any]

_POINTS = {"clean": "at the inputs", "adversarial": "under attack"}
_GROWTH = {"block": "Growth", "start": "From the start", "relative": "Relative", "alignment": "Alignment"}
_PROFILE = {"cm": "Relative error", "gain": "Gain", "tolerance": "Tolerance", "margin": "Margin"}
_MEANINGS = {
    "σ": "largest singular value of the Jacobian J, mean over the inputs: how far it can stretch a change.",
    "σ(I + J)": "the same with the identity added: of a residual branch J, what it and its shortcut do together.",
    "Log norm": "largest eigenvalue of (J + Jᵀ) / 2; below 0, changes shrink along the differential equation.",
    "Exact, Upper": "by full Jacobians, of fewer inputs: the singular value, and √(‖J‖₁ ‖J‖∞), which bounds it.",
    "Growth": "change of the block's output over that of its input, under the attack.",
    "From the start": "over the change of the first block's input.",
    "Relative": "over the size of the output itself; layer normalisation makes this the fairer figure.",
    "Alignment": "|cos| of the change of the input with the direction that is stretched most.",
    "Relative error, Gain, Tolerance, Margin": "of the same layer in the layer sustainability analysis.",
}


@renderer("lipschitz")
def lipschitz(findings: Mapping[str, Finding]) -> Section:
    """A line of singular values per network and point, a line of growth, and a table of blocks and branches."""
    known = {name: finding.data for name, finding in findings.items() if finding.data.get("blocks")}
    if not known:
        return Section("")
    html = fill(
        "lipschitz.html",
        plot=_plot(known),
        parts={name: [_table(data)] for name, data in known.items()},
        bounds=[[name, *_bounds(data)] for name, data in known.items()],
        notes={name: _notes(data) for name, data in known.items()},
        meanings=_MEANINGS,
        several=len(findings) > 1,
    )
    largest = {name: _top(data) for name, data in known.items() if data.get("places")}
    return Section(html, (Key("Largest singular value", largest, {}, "of one block's Jacobian"),) if largest else ())


def _top(data: Data) -> str:
    places = data["places"]
    return f"{number(places.get('largest'))} ({places.get('top') or 'network'})"


def _value(stated: Mapping[str, Any] | None, name: str) -> str:
    return number(((stated or {}).get(name) or {}).get("mean"))


def _figures(stated: Mapping[str, Mapping[str, Any]], exact: bool) -> list[str]:
    """σ at both points, the others at the inputs."""
    clean = stated.get("clean")
    cells = [_value(stated.get(point), "sigma") for point in _POINTS]
    cells += [_value(clean, "residual"), _value(clean, "log_norm")]
    return [*cells, _value(clean, "exact"), _value(clean, "upper")] if exact else cells


def _table(data: Data) -> dict[str, Any]:
    main = next(iter(data.get("perturbations") or ()), None)
    exact = any("exact" in (row.get("clean") or {}) for row in data["blocks"])
    profile = {key: name for key, name in _PROFILE.items() if any(row.get(key) is not None for row in data["blocks"])}
    top = (data.get("places") or {}).get("top")
    rows = []
    for row in data["blocks"]:
        grown = (row.get("growth") or {}).get(main) or {}
        cells = [row["name"] or "network", row.get("kind", "–"), *_figures(row, exact)]
        cells += [*(number(grown.get(key)) for key in _GROWTH), *(number(row.get(key)) for key in profile)]
        rows.append({"marked": row["name"] == top, "cells": cells})
        for branch, stated in (row.get("branches") or {}).items():
            empty = [""] * (len(_GROWTH) + len(profile))
            rows.append({"marked": False, "cells": [f"↳ {branch}", "branch", *_figures(stated, exact), *empty]})
    names = ["Block", "Kind", *(f"σ {place}" for place in _POINTS.values()), "σ(I + J)", "Log norm"]
    names += ["Exact", "Upper"] if exact else []
    return {"names": [*names, *_GROWTH.values(), *profile.values()], "rows": rows, "note": ""}


def _bounds(data: Data) -> list[str]:
    bounds = data.get("bounds") or {}
    measured = bounds.get("measured") or {}
    grown = "; ".join(f"{name} {number(value)}" for name, value in measured.items()) or "–"
    return [grown, *(number(bounds.get(name)) for name in ("product", "exponential", "log_norm"))]


def _notes(data: Data) -> list[str]:
    bounds, notes = data.get("bounds") or {}, [f"{data.get('inputs', 0):,} inputs."]
    if bounds.get("held") is not None:
        notes.append(f"The growth measured is at most the product on {percent(bounds['held'])} of them.")
    if not data.get("chained", True):
        notes.append(
            "Between or beside these blocks the network does more, which the products leave out: they bound nothing."
        )
    related = data.get("correlation") or {}
    if related.get("bound_growth") is not None:
        rho = f"{related['bound_growth']:.2f}".replace("-", "−")
        notes.append(f"Rank correlation of product and growth over the inputs: {rho}.")
    if related.get("bound_beaten") is not None:
        rho = f"{related['bound_beaten']:.2f}".replace("-", "−")
        notes.append(f"Of product and being beaten: {rho}.")
    ended = [(row.get(point) or {}).get("converged") for row in data["blocks"] for point in _POINTS]
    if (least := min((share for share in ended if share is not None), default=1.0)) < 1:
        text = (
            f"Some searches met their last iteration before the tolerance (of the worst block {percent(1 - least)}): "
        )
        notes.append(text + "their values are from below.")
    return notes


def _plot(known: Mapping[str, Data]) -> str:
    """Networks by colour; points and growth by dash."""
    several, traces = len(known) > 1, list[Trace]()
    for n, (network, data) in enumerate(known.items()):
        main = next(iter(data.get("perturbations") or ()), None)
        names = [escape_label(row["name"] or "network") for row in data["blocks"]]
        lines = {
            f"σ {place}": [((row.get(point) or {}).get("sigma") or {}).get("mean") for row in data["blocks"]]
            for point, place in _POINTS.items()
        }
        grown = [((row.get("growth") or {}).get(main) or {}).get("block") for row in data["blocks"]]
        for k, (what, values) in enumerate({**lines, f"growth under {main}": grown}.items()):
            colour = pick(COLOURS, n if several else k)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": names,
                    "y": values,
                    "name": line_name(network, what, several),
                    "line": {"color": colour, "dash": pick(DASHES, k)},
                }
            )
    layout = {
        "xaxis": {"type": "category", "title": {"text": "block, in order of execution"}},
        "yaxis": {"title": {"text": "factor, log scale"}, "type": "log"},
    }
    return figure(traces, layout, "Largest singular value of each block's Jacobian, and measured growth", height=400)
