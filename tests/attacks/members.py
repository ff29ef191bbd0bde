"""Registered attacks and noises, small and cheap, under a threat, for the tests that hold for every one."""

import dataclasses
import re

from buttress import registry
from buttress.attacks import PGD
from buttress.errors import UserError
from buttress.threat import Threat

UNDEFINED = re.compile(r"norm|eps|linf|l2|l1")  # what a refusal speaks of when a method knows no such threat
CHEAP = {"steps": 3, "queries": 6, "draws": 2, "search_steps": 2, "samples": 2, "population": 4, "targets": 2}


THREATS = [Threat(norm=norm, eps=eps) for norm in ("linf", "l2", "l1") for eps in (0.3, float("inf"))]


def make(name, threat, surrogate=None, inner=PGD, **wanted):
    """The member, small and cheap, under this threat; one that wraps an attack wraps one of the kind ``inner``."""
    member = registry.attack.get(name)
    known = {field.name for field in dataclasses.fields(member)}
    wanted = {"threat": threat, "box": threat.box, "surrogate": surrogate, **CHEAP, **wanted}
    if "attack" in known:
        kept = ("steps", "restarts", "step_size", "loss")
        fields = {field.name for field in dataclasses.fields(inner)}
        wanted["attack"] = inner(threat=threat, **{key: wanted[key] for key in kept if key in wanted and key in fields})
    return member(**{key: value for key, value in wanted.items() if key in known})


def made(name, threat, *args, **wanted):
    """As `make`; None where the method is not defined for this threat, and says so."""
    try:
        return make(name, threat, *args, **wanted)
    except UserError as refusal:
        if not UNDEFINED.search(str(refusal)):
            raise
        return None


def somewhere(name, surrogate=None, threats=THREATS, **wanted):
    """The member under the first of the threats that it knows."""
    return next(attack for threat in threats if (attack := made(name, threat, surrogate, **wanted)) is not None)
