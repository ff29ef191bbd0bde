"""Attacks to run next: which ones, and their settings as plain data."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any, cast

from buttress.attacks import Attack, Perturbation
from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import CheckContext
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.threat import Threat


def black_box(context: CheckContext, more: int = 1) -> Attack:
    """Square with ``more`` times the queries, and twice those of the attack in question at least.

    PGD on the margin from many starts where Square cannot run.
    """
    threat, own = context.attack.threat, int(context.attack.innermost.settings().get("queries", 0))
    try:
        return Square(threat=threat, queries=max(more * context.queries, 2 * own))
    except UserError:  # without a finite eps or a box
        return context.with_replaced_gradients(PGD(threat=threat, steps=5 * context.steps, restarts=10, loss="margin"))


def averaged(context: CheckContext) -> Attack:
    """The attack in question, its gradients averaged over the network's draws.

    Where it averages already, over four times as many draws, and `EoT`'s usual number at least. Otherwise, where the
    user chose no loss, on the margin, not on the cross-entropy: in its mean the draws in which the input has lost
    already outweigh all others.
    """
    attack = context.attack
    if _averages(attack):
        return _more_draws(attack)
    if attack.draws > 1:  # one with draws of its own
        return cast(Attack, replace(cast(Any, attack), draws=4 * attack.draws))
    core = attack.innermost
    chosen = core.defaults().get("loss") is None and core.settings().get("loss") is not None
    return EoT(attack=attack if chosen else context.varied(loss="margin"))


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


def attack_settings(attack: Perturbation) -> dict[str, Any]:
    """An attack as plain data for readers: its name and the settings that differ from their defaults.

    The threat is always included. What is no plain data, such as a network or a function, is given by where it, or
    its class, is defined.
    """
    return {"name": registered_attacks.name_of(attack), **_settings(attack)}


def _settings(thing: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for f in fields(thing):
        value, default = getattr(thing, f.name), f.default
        if isinstance(value, Threat):
            settings[f.name] = value.facts()
        elif isinstance(value, Perturbation):
            settings[f.name] = attack_settings(value)
        elif default is MISSING or value != default:
            several = isinstance(value, list | tuple)
            items = [_item(item) for item in (value if several else [value])]
            settings[f.name] = items if several else items[0]
    return settings


def _item(value: Any) -> Any:
    """A number or text as it is, anything else by where it is defined."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    thing = value if hasattr(value, "__qualname__") else type(value)
    return f"{thing.__module__}:{thing.__qualname__}"
