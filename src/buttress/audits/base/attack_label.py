"""Attacks and noises in a few words."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

from buttress.attacks import Attack, Perturbation
from buttress.attacks.composed.autoattack import AutoAttack
from buttress.registry import attack as registered_attacks


def describe(attack: Perturbation) -> str:
    """A perturbation in a few words: "PGD-20", "PGD-40 x 5", "EoT of PGD-20", "AutoAttack (standard)", "gaussian".

    AutoAttack's version stands for all that is as published; what differs is told with it.
    """
    _, users, name = registered_attacks.name_of(attack).rpartition(":")
    if getattr(attack, "threat", None) is None:
        return name
    if not users:  # acronyms with their hyphens, names as they are written
        name = name.upper() if type(attack).__name__.isupper() else type(attack).__name__
    inner = getattr(attack, "attack", None)
    if isinstance(inner, Attack):
        variant = getattr(attack, "variant", None)
        return f"{name}{f' {variant!r}' if isinstance(variant, str) else ''} of {describe(inner)}"
    if isinstance(attack, AutoAttack):
        return f"{name} ({', '.join([attack.version, *_changed(attack)])})"
    loss = getattr(attack, "loss", None)
    effort, restarts = getattr(attack, "steps", getattr(attack, "queries", None)), getattr(attack, "restarts", 1)
    targets = getattr(attack, "targets", 0)
    text = name + (f"-{effort}" if effort is not None else "") + (f" x {restarts}" if restarts > 1 else "")
    usual = next((f.default for f in fields(cast(Any, attack)) if f.name == "loss"), None)
    special = isinstance(loss, str) and loss != usual
    notes = ([str(loss)] if special and loss != "cross_entropy" else []) + ([f"{targets} targets"] if targets else [])
    return text + (f" ({', '.join(notes)})" if notes else "")


def _changed(suite: AutoAttack) -> list[str]:
    """What is not as a suite's version has it: "20 steps"; the parts that are run by their names."""
    usual, changed = AutoAttack(version=suite.version), list[str]()
    for field in fields(AutoAttack):
        value = getattr(suite, field.name)
        if field.name == "threat" or value == getattr(usual, field.name):
            continue
        changed.append(" + ".join(value) if isinstance(value, tuple) else f"{value} {field.name}")
    return changed
