"""What robustness costs: clean and robust accuracy, training passes, and which networks are on the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from buttress.audits import Finding
from buttress.audits.base.ranking import ranking
from buttress.threat import budget_text

Row = dict[str, Any]


def trade_off(
    networks: Mapping[str, Sequence[Finding]], training: Mapping[str, Mapping[str, Any]]
) -> dict[str, Finding]:
    """A finding for each network that was attacked as the first was, if there are two or more.

    That is within the same budget, by the same attacks, on the same inputs. ``tied`` are the figures, "robust" or
    "clean", by which the network may be the first of all: the inputs do not show it to be lower (`Ranking.tied`). Where
    an attack that masking proposed found less, that is the figure.

    Args:
        networks: findings by network.
        training: what is known of each network's training: ``passes`` for each training input over the whole training,
            ``relative``, their multiple of standard training's, and ``seconds``; each may be missing.
    """
    rows: dict[str, Row] = {}
    first: tuple[Any, ...] = ()
    for name, findings in networks.items():
        robustness = [finding.data for finding in findings if finding.kind == "robustness"]
        candidates = [row for data in robustness if (row := _row(data, training.get(name, {}))) is not None]
        if not candidates:
            continue
        how = (*_budget(candidates[0]), *(robustness[0].get(key) for key in ("fingerprints", "same_inputs", "seed")))
        first = first or how
        if how == first:
            rows[name] = min(
                (row for row in candidates if _budget(row) == _budget(candidates[0])), key=lambda row: row["robust"]
            )
    if len(rows) < 2:
        return {}
    for figure in ("robust", "clean"):
        bits = [row["stands"][figure] for row in rows.values()]
        tied = ranking(torch.tensor([[one == "1" for one in row] for row in bits]), first[-1] or 0).tied()
        for k, row in enumerate(rows.values()):
            row["tied"] += [figure] * (k in tied)
    better = {name: [other for other in rows if dominates(rows[other], row)] for name, row in rows.items()}
    return {name: _finding(row, better[name]) for name, row in rows.items()}


def dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether ``one`` is at least as good in clean accuracy, robust accuracy and passes, and better in one of these.

    Passes count only where both are known.
    """
    pairs = [(one["clean"], other["clean"]), (one["robust"], other["robust"])]
    if one["passes"] is not None and other["passes"] is not None:
        pairs.append((-one["passes"], -other["passes"]))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _row(data: Mapping[str, Any], training: Mapping[str, Any]) -> Row | None:
    eps, stands = data.get("main_eps"), data.get("stands", {})
    if eps is None or not stands.get("clean") or not stands.get("main"):
        return None
    shares = {key: stands[key].count("1") / len(stands[key]) for key in ("clean", "main")}
    point: Mapping[str, Any] = next(
        (p for p in data.get("worst") or () if math.isclose(p["eps"], eps, abs_tol=1e-9)), {}
    )
    attacks = [attack["label"] for attack in data["attacks"]]
    row: Row = {"clean": shares["clean"], "robust": shares["main"], "low": point.get("low"), "high": point.get("high")}
    row |= {"eps": eps, "norm": data["attacks"][0]["norm"], "attacks": attacks, "inputs": data["inputs"]}
    row |= {"tied": [], "stands": {"clean": stands["clean"], "robust": stands["main"]}}
    return row | {key: training.get(key) for key in ("passes", "relative", "seconds")}


def _budget(row: Mapping[str, Any]) -> tuple[str, float]:
    return row["norm"], row["eps"]


def _finding(row: Row, beaten_by: Sequence[str]) -> Finding:
    text = f"{row['clean']:.1%} clean, {row['robust']:.1%} robust ({row['norm']} eps {budget_text(row['eps'])})"
    if row["relative"] is not None:
        text += f" at {row['relative']:.3g} times the passes of standard training"
    verdict = f"{text}; " + (
        f"{beaten_by[0]} is as good or better in everything." if beaten_by else "no other is better in everything."
    )
    data = {
        **{key: value for key, value in row.items() if key != "stands"},
        "front": not beaten_by,
        "beaten_by": list(beaten_by),
    }
    return Finding("trade-off", "Accuracy against training cost", verdict, "info", data)
