"""Attacks to run next: which ones, and how they are told as plain data."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any, cast

from buttress.attacks import Attack, Perturbation
from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import Trial
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.threat import Threat


def black_box(trial: Trial, more: int = 1) -> Attack:
    """Square with ``more`` times the queries, and twice those of the attack in question at least.

    PGD on the margin from many starts where Square cannot run.
    """
    threat, own = trial.attack.threat, int(trial.attack.innermost.settings().get("queries", 0))
    try:
        return Square(threat=threat, queries=max(more * trial.queries, 2 * own))
    except UserError:  # without a finite eps or a box
        return trial.through(PGD(threat=threat, steps=5 * trial.steps, restarts=10, loss="margin"))


def averaged(trial: Trial) -> Attack:
    """The attack in question, its gradients averaged over the network's draws.

    Where it averages already, over four times as many draws, and `EoT`'s usual number at least. Otherwise, where the
    user chose no loss, on the margin, not on the cross-entropy: in its mean the draws in which the input has lost
    already outweigh all others.
    """
    attack = trial.attack
    if _averages(attack):
        return _more_draws(attack)
    if attack.draws > 1:  # one with draws of its own
        return cast(Attack, replace(cast(Any, attack), draws=4 * attack.draws))
    core = attack.innermost
    chosen = core.defaults().get("loss") is None and core.settings().get("loss") is not None
    return EoT(attack=attack if chosen else trial.varied(loss="margin"))


def _averages(attack: Attack) -> bool:
    """Whether an EoT stands in it; what a transfer attack averages are its surrogate's draws."""
    inside = None if isinstance(attack, Transfer) else attack.inner
    return isinstance(attack, EoT) or (inside is not None and _averages(inside))


def _more_draws(attack: Attack) -> Attack:
    """More draws wherever an EoT stands: the innermost one answers the search, the outermost one the verdict."""
    inside = attack.inner
    changes: dict[str, Any] = {"attack": _more_draws(inside)} if inside is not None and _averages(inside) else {}
    more = {"draws": max(4 * attack.draws, EoT.draws)} if isinstance(attack, EoT) else {}
    return cast(Attack, replace(cast(Any, attack), **changes, **more))


def spelt(attack: Perturbation) -> dict[str, Any]:
    """An attack as plain data for who reads it: its name and the settings that differ from their defaults.

    Its threat is told always. What is no plain data, such as a network or a function, is told by where it, or its
    class, is defined.
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
            several = isinstance(value, list | tuple)
            items = [_item(item) for item in (value if several else [value])]
            found[f.name] = items if several else items[0]
    return found


def _item(value: Any) -> Any:
    """A number or text as it is, anything else by where it is defined."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    thing = value if hasattr(value, "__qualname__") else type(value)
    return f"{thing.__module__}:{thing.__qualname__}"
