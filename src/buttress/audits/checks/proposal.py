"""Attacks to run next: which ones, and as plain data that survives JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from buttress.attacks import Attack, Perturbation
from buttress.attacks.eot import EoT
from buttress.attacks.pgd import PGD
from buttress.attacks.square import Square
from buttress.audits.checks.base import Trial
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.threat import Threat


def black_box(trial: Trial, more: int = 1) -> Attack:
    """Square with ``more`` times the queries; PGD on the margin from many starts where Square cannot run."""
    threat = trial.attack.threat
    try:
        return Square(threat=threat, queries=more * trial.queries)
    except UserError:  # without a finite eps or a box
        return PGD(threat=threat, steps=5 * trial.steps, restarts=10, loss="margin")


def averaged(trial: Trial) -> Attack:
    """The attack in question on the margin, its gradients averaged over the network's draws.

    Not on the cross-entropy: in its mean the draws in which the input has lost already outweigh all others.
    """
    return trial.attack if trial.attack.draws > 1 else EoT(attack=trial.varied(loss="margin"))


def spelt(attack: Perturbation) -> dict[str, Any]:
    """An attack as plain data: its name and the settings that differ from their defaults, its threat always.

    Raises:
        UserError: for a setting that is no plain data, such as a network or a function.
    """
    return {"name": registered_attacks.name_of(attack), **_settings(attack)}


def _settings(thing: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for f in fields(thing):
        value, default = getattr(thing, f.name), f.default
        if isinstance(value, Threat):
            found[f.name] = {"norm": value.norm, "eps": value.eps, "box": None if value.box is None else [*value.box]}
        elif isinstance(value, Perturbation):
            found[f.name] = spelt(value)
        elif default is MISSING or value != default:
            if not (value is None or isinstance(value, bool | int | float | str)):
                raise UserError(f"{f.name} of {type(thing).__name__} is a {type(value).__name__}: it cannot be spelt")
            found[f.name] = value
    return found


def built(tree: Mapping[str, Any]) -> Attack:
    """The attack that `spelt` described."""
    settings: dict[str, Any] = {}
    for name, value in tree.items():
        if name == "threat" and isinstance(value, Mapping):
            box = value["box"]
            settings[name] = Threat(norm=value["norm"], eps=value["eps"], box=None if box is None else (box[0], box[1]))
        elif isinstance(value, Mapping):
            settings[name] = built(value)
        elif name != "name":
            settings[name] = value
    attack: Attack = registered_attacks.get(tree["name"])(**settings)
    return attack
