"""The questions that an audit puts: the usual ones, those that a user gave, and those that follow from findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast, get_type_hints

import torch
from torch import nn

from buttress import tasks
from buttress.attacks import Attack, Perturbation
from buttress.attacks.black_box.hopskipjump import HopSkipJump
from buttress.attacks.black_box.square import Square
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Audit, Finding
from buttress.audits.base.audit import TAKES_ATTACKS
from buttress.audits.base.without_gradients import has_gradient
from buttress.audits.boundary import Boundary
from buttress.audits.examples import Examples
from buttress.audits.layers import Layers
from buttress.audits.masking.audit import Masking
from buttress.audits.robustness import Robustness
from buttress.config.annotations import alternatives, item_of
from buttress.data.dataset import Dataset
from buttress.engine.input_dtype import suited
from buttress.engine.threat_resolution import resolve_threats
from buttress.tasks import Task
from buttress.threat import Threat

_QUERIES = 1000  # of each attack on a network without gradients


def usual_audits(
    dataset: Dataset,
    threat: Threat,
    attacks: Sequence[Attack] | None = None,
    layers: str | None = "activations",
    task: Task = tasks.classification,
) -> list[Audit]:
    """The questions put when nobody says which: robustness in each norm, layers, and examples or the boundary.

    ``threat`` is that of attacks that were given none. ``layers`` are those looked at, as `analysed_layers` finds them;
    None looks at none.
    """
    chosen = resolve_threats(list(attacks or usual_attacks()), usual=threat)
    noise = Gaussian(std=0.1, box=threat.box)
    displacing: list[Perturbation] = [*chosen, noise]
    norms = dict.fromkeys(attack.threat.norm for attack in chosen)
    robustness = [Robustness(attacks=[a for a in chosen if a.threat.norm == norm], noises=[noise]) for norm in norms]
    shown: Audit = Boundary() if dataset.shape == (2,) and task.classes else Examples(attack=chosen[0])
    inside = [] if layers is None else [Layers(perturbations=displacing, layers=layers)]
    return [*robustness, *inside, shown]


def usual_attacks() -> list[Attack]:
    """What networks are attacked with when nobody says by which attacks."""
    return [PGD(steps=20), FGSM()]


def usual_trust(threat: Threat, attacks: Sequence[Attack] | None = None) -> list[Audit]:
    """The trust audit of a job that names none: of the first attack's figure that has a budget, if there is one."""
    chosen = resolve_threats(list(attacks or [PGD(steps=20)]), usual=threat)
    questioned = next((attack for attack in chosen if 0 < attack.threat.eps < math.inf), None)
    return [] if questioned is None else [Masking(attack=questioned, threat=threat)]


def proposed(questions: Sequence[Audit], findings: Sequence[Finding]) -> list[Audit]:
    """What trust audits say should be run next: the attack in question and the proposed one, and the worst of both.

    The proposed one alone where the other has no gradient, or its figure counts lucky passes of a network that draws.
    """
    proposals: list[Audit] = []
    for question, finding in zip(questions, findings, strict=True):
        if isinstance(question, Masking) and finding.next is not None:
            first, attack = question.audited, finding.next
            alone = finding.data["robust"] is None or finding.data["random"]
            proposals.append(Robustness(attacks=[attack] if alone else [first, attack], eps=[first.threat.eps]))
    return proposals


def lacks_gradient(model: nn.Module, dataset: Dataset, task: Task) -> bool:
    """Whether the network gives no gradients, as one from ONNX or scikit-learn."""
    x, _, _ = dataset.test.take(torch.arange(1))
    return not has_gradient(model, suited(model, x), task)


def gradient_free_attacks(threat: Threat) -> list[Attack]:
    """What a network without gradients is attacked with when nobody says by which attacks."""
    chosen: list[Attack] = [Square(queries=_QUERIES)]
    if threat.box is not None and threat.norm != "l1":  # its search for the smallest perturbation begins in the box
        chosen.append(HopSkipJump(queries=_QUERIES))
    return chosen


def given_audits(questions: Sequence[Audit], attacks: Sequence[Attack] | None) -> list[Audit]:
    """Questions as the user put them, with the user's attacks where they name none themselves."""
    if not attacks:
        return list(questions)
    return [_with_attacks(question, attacks) if is_dataclass(question) else question for question in questions]


def _with_attacks(question: Audit, attacks: Sequence[Attack]) -> Audit:
    """The question with these attacks in every parameter for attacks that was left at its default."""
    hints, changes = get_type_hints(type(question), include_extras=True), dict[str, Any]()
    for f in fields(cast(Any, question)):
        marked = TAKES_ATTACKS in getattr(hints[f.name], "__metadata__", ())
        kinds = alternatives(hints[f.name].__origin__ if marked else hints[f.name])
        base = Perturbation if marked else Attack
        if not _same(getattr(question, f.name), f.default):
            continue
        if any(isinstance(kind, type) and issubclass(kind, base) for kind in kinds):
            changes[f.name] = attacks[0]
        elif any(isinstance(item := item_of(kind), type) and issubclass(item, base) for kind in kinds):
            usual = cast(Any, f.default or ())
            noises = [one for one in usual if isinstance(one, Perturbation) and not isinstance(one, Attack)]
            changes[f.name] = [*attacks, *noises]
    return cast(Audit, replace(cast(Any, question), **changes)) if changes else question


def attacks_of(questions: Sequence[Audit]) -> list[Perturbation]:
    """The attacks that the robustness audits will run, over all budgets; for an estimate of time."""
    robustness = [question for question in questions if isinstance(question, Robustness)]
    return [attack for question in robustness for attack in question.runs]


def _same(value: object, default: object) -> bool:
    """Whether a field was left at its default; the typed parser makes lists of tuples."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return value == default
