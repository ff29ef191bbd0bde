"""Attacks and noises in a few words."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

from buttress.attacks import Attack, Perturbation
from buttress.registry import attack as registered_attacks


def describe(attack: Perturbation) -> str:
    """A perturbation in a few words: "PGD-20", "PGD-40 x 5", "EoT of PGD-20", "AutoAttack (standard)", "gaussian"."""
    _, users, name = registered_attacks.name_of(attack).rpartition(":")
    if getattr(attack, "threat", None) is None:
        return name
    if not users:  # acronyms with their hyphens, names as they are written
        name = name.upper() if type(attack).__name__.isupper() else type(attack).__name__
    inner = getattr(attack, "attack", None)
    if isinstance(inner, Attack):
        return f"{name} of {describe(inner)}"
    version, loss = getattr(attack, "version", None), getattr(attack, "loss", None)
    if isinstance(version, str):
        return f"{name} ({version})"
    effort, restarts = getattr(attack, "steps", getattr(attack, "queries", None)), getattr(attack, "restarts", 1)
    targets = getattr(attack, "targets", 0)
    text = name + (f"-{effort}" if effort is not None else "") + (f" x {restarts}" if restarts > 1 else "")
    usual = next((f.default for f in fields(cast(Any, attack)) if f.name == "loss"), None)
    special = isinstance(loss, str) and loss != usual
    notes = ([str(loss)] if special and loss != "cross_entropy" else []) + ([f"{targets} targets"] if targets else [])
    return text + (f" ({', '.join(notes)})" if notes else "")
