"""A job's own threat, and what is filled in with it."""

from __future__ import annotations

import logging
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from buttress.attacks import Attack, Perturbation
from buttress.audits.base.attack_label import describe
from buttress.defences.base.defence import Defence
from buttress.errors import UserError
from buttress.threat import Threat, budget_text

Thing = TypeVar("Thing")
log = logging.getLogger(__name__)


def under(threat: Threat, thing: Thing) -> Thing:
    """``thing`` (an attack, a defence, a list of them) with what was left at its default taken from ``threat``.

    That is every threat as a whole, the box of a threat given without one, and the box of a noise. A method's own
    default (CW's l2 without a limit) stays, unless the user typed a threat for the job. One in the usual norm, of which
    perhaps the eps alone was typed, is not for methods that do not know that norm: they keep their own, and say so.
    """
    if isinstance(thing, Threat):
        if left_alone(thing):
            return cast(Thing, threat)
        return cast(Thing, threat_for(threat.box, thing))
    if isinstance(thing, Defence):
        return cast(Thing, type(thing)(**{key: under(threat, value) for key, value in thing.settings().items()}))
    if isinstance(thing, list | tuple):
        return cast(Thing, type(thing)(under(threat, part) for part in thing))
    if is_dataclass(thing) and not isinstance(thing, type):
        inside = {f.name: getattr(thing, f.name) for f in fields(thing)}
        usual = {f.name for f in fields(thing) if threat.explicit and _usual(inside[f.name], f.default)}
        news = {key: _typed(threat, thing, key) if key in usual else under(threat, inside[key]) for key in inside}
        changed = {key: new for key, new in news.items() if new is not inside[key]}
        if _is_noise(thing) and inside.get("box") == Threat().box:
            changed["box"] = threat.box
        return replace(cast(Any, thing), **changed) if changed else thing
    return thing


def _usual(value: object, default: object) -> bool:
    """Whether this is the threat that a method has by itself; a threat that the user typed beats it."""
    return isinstance(value, Threat) and not value.explicit and value == default


def _typed(threat: Threat, thing: Any, name: str) -> Threat:
    """The threat that was typed; the method's own where it cannot take that, and the norm may not have been typed."""
    own: Threat = getattr(thing, name)
    if threat.norm == own.norm or threat.norm != Threat().norm:
        return threat
    try:
        replace(thing, **{name: threat})
    except UserError as reason:
        told = f"{own.norm} eps {budget_text(own.eps)}"
        log.warning("%s keeps its own threat, %s: %s", describe(thing), told, reason)
        return threat_for(threat.box, replace(own, explicit=True))  # settled, and told once
    return threat


def _is_noise(thing: object) -> bool:
    return isinstance(thing, Perturbation) and not isinstance(thing, Attack)


def left_alone(threat: Threat) -> bool:
    """Whether nobody said anything of this threat, as far as one can tell."""
    return threat == Threat() and not threat.explicit


def said(threat: Threat) -> dict[str, Any]:
    """A threat as plain data."""
    return {"norm": threat.norm, "eps": threat.eps, "box": threat.box}


def threat_for(box: tuple[float, float] | None, threat: Threat) -> Threat:
    """The threat in this box (the data's own), where its box was left at the default."""
    return replace(threat, box=box) if threat.box == Threat().box else threat
