"""What the audit `adaptive` measures: each attack's success, accuracy over budgets, and accuracy without a part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from buttress.attacks import Attack
from buttress.attacks.composed.variant import optional_networks
from buttress.audits.adaptive.attack_list import REFERENCE, Entry
from buttress.audits.base.budget_sweep import Cost, cost, sweep
from buttress.audits.base.statistics import accuracy
from buttress.audits.base.subject import Subject, Timed
from buttress.audits.masking.checks.check import CheckContext
from buttress.errors import UserError
from buttress.threat import Threat

_SHARES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)  # budgets of the curve, as multiples of eps


@dataclass(frozen=True)
class AttackRun:
    """One attack's run.

    Attributes:
        entry: the attack.
        attacked: (N,) bool, the inputs that it was run on.
        success: (N,) bool, those of them for which it was successful and that were classified correctly before.
        cost: what it cost.
        reason: why it did not run; empty where it did.
    """

    entry: Entry
    attacked: Tensor
    success: Tensor
    cost: Cost
    reason: str = ""


def run_all(context: CheckContext, entries: Iterable[Entry], *, cascade: bool) -> tuple[list[AttackRun], Tensor | None]:
    """Each attack's run, and the points that the reference found.

    Args:
        context: the network and its inputs.
        entries: the attacks, in order.
        cascade: attack only what all before have missed.
    """
    runs, points, robust = list[AttackRun](), None, context.correct
    for entry in entries:
        rows = robust if cascade and entry.kind != REFERENCE else torch.ones_like(robust)
        if entry.inputs is not None:
            rows = rows & _spread_over(len(rows), entry.inputs, rows.device)
        run, timed = _run(context, entry, rows)
        runs.append(run)
        robust = robust & ~run.success
        if entry.kind == REFERENCE and timed is not None:
            points = timed.outcome.x_adv
    return runs, points


def _run(context: CheckContext, entry: Entry, attacked: Tensor) -> tuple[AttackRun, Timed | None]:
    """One attack on some inputs, (N,) bool."""
    subject, none = context.subject, torch.zeros_like(attacked)
    rows = None if bool(attacked.all()) else attacked.nonzero().squeeze(1)
    if rows is not None and not len(rows):
        return AttackRun(entry, attacked, none, Cost()), None
    try:
        timed = subject.attacked(entry.attack, search="full" if context.random else "first", rows=rows)
    except UserError as reason:
        return AttackRun(entry, none, none, Cost(), sentence(reason)), None
    index = slice(None) if rows is None else rows
    if context.random:
        points = subject.x.clone()
        points[index] = timed.outcome.x_adv
        success = attacked & context.correct & ~context.robust_at(points)
    else:
        success = none.clone()
        success[index] = timed.outcome.success
        success &= context.correct
    return AttackRun(entry, attacked, success, cost(timed)), timed


def _spread_over(count: int, most: int, device: torch.device) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.bool, device=device)
    chosen[torch.linspace(0, count - 1, min(most, count), device=device).round().long()] = True
    return chosen


def curve_budgets(threat: Threat) -> list[float]:
    """0, budgets around eps and, in linf, the width of the box, rising."""
    budgets, width = {threat.eps * share for share in _SHARES}, threat.widest
    if math.isfinite(width) and threat.norm == "linf":
        budgets = {eps for eps in budgets if eps < width} | {threat.eps, width}
    return [0.0, *sorted(budgets)]


def accuracy_curve(context: CheckContext, attack: Attack) -> tuple[list[dict[str, Any]], str]:
    """Accuracy under an attack at budgets around its eps and, in linf, at the width of the box; why there is none."""
    try:
        result = sweep(context.subject, attack, curve_budgets(attack.threat), context.correct, reuse=True)
    except UserError as reason:
        return [], sentence(reason)
    return [{"eps": eps, **accuracy(rows)} for eps, rows in result.robust.items()], ""


def ablations_of(model: nn.Module) -> dict[str, nn.Module]:
    """What a network offers as its own weights without a part of it, by a method ``ablations``; empty without one.

    Of a network inside others that hold it as ``model`` they are put in its place, as its variants for attacks are.
    """
    return optional_networks(model, "ablations", "ablation")


def ablation_rows(subject: Subject, points: Tensor | None) -> list[dict[str, Any]]:
    """Accuracy of each ablation, on the inputs and on points (N, ...) that were found for the network itself."""
    rows = []
    for name, model in ablations_of(subject.model).items():
        other = replace(subject, model=model, store={}, folder=None, _logits=None)
        row: dict[str, Any] = {"label": name, "clean": accuracy(~subject.task.is_adversarial(other.logits, subject.y))}
        if points is not None:
            row["reference"] = accuracy(~subject.task.is_adversarial(other.output(points), subject.y))
        rows.append(row)
    return rows


def sentence(reason: object) -> str:
    """An error's message with a capital and a full stop."""
    return f"{str(reason)[:1].upper()}{str(reason)[1:]}."
