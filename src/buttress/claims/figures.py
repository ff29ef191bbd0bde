"""Figures of a network beside its accuracies: from what audits report, the training's history, and its monitors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from buttress import audits
from buttress.audits import Audit, Finding
from buttress.claims.experiment import Figure
from buttress.claims.recipe import from_mapping
from buttress.config.reading import build
from buttress.data.dataset import Split
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.registry import nearest
from buttress.threat import Threat
from buttress.training import Trained

History = list[dict[str, float | None]]  # a row for each epoch

HISTORY_PATHS = ("last", "best", "drop")
FIRED = "monitors fired"  # a figure of rows whose training is monitored: 1 where a monitor reported something


def measure_figures(
    trained: Trained,
    split: Split,
    trees: Mapping[str, Any],
    threat: Threat,
    settings: Mapping[str, Any],
    train_without: Callable[[str | int], nn.Module],
) -> dict[str, float | str]:
    """Figures by name; those that are of one audit share its finding.

    Args:
        trained: the network and its history.
        split: what audits look at.
        trees: by name, what the recipe says of a figure; see `Figure`.
        threat: of audits that have none of their own.
        settings: further arguments of the audits.
        train_without: trains a network like this one on the data without a class, by its name or index.
    """
    values: dict[str, float | str] = {}
    findings: dict[str, Finding] = {}
    for name, tree in trees.items():
        figure = from_mapping(Figure, tree, "claim: experiment: figures")
        if figure.history:
            values[name] = figure_of_history(figure, trained.history)
            continue
        key = json.dumps([figure.audit, figure.inputs, figure.without], sort_keys=True)
        if key not in findings:
            audit: Audit = resolve_threats(figure_audit(figure, train_without), usual=threat)
            (findings[key],) = audits.run(trained.model, split, [audit], limit=figure.inputs, **settings)
        values[name] = figure_of_finding(figure, findings[key])
    return values


def figure_audit(figure: Figure, train_without: Callable[[str | int], nn.Module]) -> Audit:
    """A figure's audit, with networks without a class where it has such."""
    tree = figure.audit
    if figure.without:
        options = {"name": tree} if isinstance(tree, str) else tree
        tree = {**options, "without": {name: train_without(name) for name in figure.without}}
    audit: Audit = build(Audit, tree)
    return audit


def figure_of_finding(figure: Figure, finding: Finding) -> float | str:
    """One entry of a finding.

    Raises:
        UserError: when the finding does not have it, or when it is no number or text.
    """
    value: Any = finding.data
    for part in figure.path.split("."):
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = {str(index): entry for index, entry in enumerate(value)}
        entries = value if isinstance(value, Mapping) else {}
        if part not in entries:
            raise UserError(f"claim: figures: {finding.kind} has no {figure.path!r}; {nearest(part, list(entries))}")
        value = entries[part]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"claim: figures: {figure.path!r} of {finding.kind} is no number or text but {value!r}")
    return value if isinstance(value, str) else figure.times * value


def figure_of_history(figure: Figure, history: Sequence[Mapping[str, float]]) -> float:
    """The last value of a figure over the epochs, its best, or how far the last is below the best.

    Raises:
        UserError: when the history does not have the figure.
    """
    names = sorted({key for row in history for key in row})
    if figure.history not in names:
        raise UserError(f"claim: figures: no {figure.history!r} in the history; {nearest(figure.history, names)}")
    values = [row[figure.history] for row in history if figure.history in row]
    last, best = values[-1], max(values)
    return figure.times * {"last": last, "best": best, "drop": best - last}[figure.path]


def finite_history(history: Sequence[Mapping[str, float]]) -> History:
    """A row of figures for each epoch, None for what is no finite number."""
    return [{key: float(value) if math.isfinite(value) else None for key, value in row.items()} for row in history]


def detector_figure(detector: str) -> str:
    """Name of the figure that says whether a monitor's detector ever reported what it looks for."""
    return f"fired: {detector}"


def monitor_figures(trained: Trained) -> dict[str, float | str]:
    """Whether any monitor reported something, and which of its detectors ever did, where the history has them."""
    detectors = sorted({name for row in trained.history for name in row if name.startswith("fired_")})
    ever = {name: max(row.get(name, 0.0) for row in trained.history) for name in detectors}
    by_name = {detector_figure(name.removeprefix("fired_").replace("_", "-")): value for name, value in ever.items()}
    return {FIRED: float(bool(trained.notes)), **by_name}
