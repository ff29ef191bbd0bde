"""Attacks to run next: which ones, and as plain data that survives JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, cast

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

    Where it averages already, over four times as many draws. Otherwise on the margin, not on the cross-entropy: in its
    mean the draws in which the input has lost already outweigh all others.
    """
    if trial.attack.draws == 1:
        return EoT(attack=trial.varied(loss="margin"))
    more = 4 * trial.attack.draws
    if "draws" in {f.name for f in fields(cast(Any, trial.attack))}:
        return cast(Attack, replace(cast(Any, trial.attack), draws=more))
    return EoT(attack=trial.attack, draws=more)


def spelt(attack: Perturbation) -> dict[str, Any]:
    """An attack as plain data: its name and the settings that differ from their defaults, its threat always.

    What is no plain data, such as a network or a function, is told as ``{"kept": name}``: it is the audit's own.
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
            items = list(value) if isinstance(value, list | tuple) else [value]
            plain = all(item is None or isinstance(item, bool | int | float | str) for item in items)
            found[f.name] = (items if isinstance(value, list | tuple) else value) if plain else {"kept": f.name}
    return found


def kept(thing: Any) -> dict[str, Any]:
    """What `spelt` leaves out of the attacks that an audit holds: values by their field's name."""
    found: dict[str, Any] = {}
    for f in fields(thing):
        value = getattr(thing, f.name)
        found |= kept(value) if isinstance(value, Perturbation) else {f.name: value}
    return found


def built(tree: Mapping[str, Any], held: Mapping[str, Any] | None = None) -> Attack:
    """The attack that `spelt` described, with what is `kept`.

    Raises:
        UserError: when something that was left out is not held.
    """
    settings: dict[str, Any] = {}
    for name, value in tree.items():
        if name == "threat" and isinstance(value, Mapping):
            box = value["box"]
            settings[name] = Threat(norm=value["norm"], eps=value["eps"], box=None if box is None else (box[0], box[1]))
        elif isinstance(value, Mapping) and "kept" in value:
            if value["kept"] not in (held or {}):
                raise UserError(f"{name} is no plain data, and is not at hand: build the attack in Python")
            settings[name] = (held or {})[value["kept"]]
        elif isinstance(value, Mapping):
            settings[name] = built(value, held)
        elif name != "name":
            settings[name] = value
    attack: Attack = registered_attacks.get(tree["name"])(**settings)
    return attack
