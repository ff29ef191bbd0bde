"""Options that would do nothing are refused: who types one believes in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from buttress.attacks import Attack, Perturbation
from buttress.audits import Audit
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.jobs.questions import given_audits
from buttress.threat import Threat


def refuse_without_effect(settings: Any, used: Collection[str], where: str) -> None:
    """Refuse settings that were given and that nothing is going to read.

    Args:
        settings: a group of options, a dataclass; what equals its default was not given.
        used: the names of those that count.
        where: what they would be about, and why they do not count.

    Raises:
        UserError: naming the first.
    """
    for field in fields(settings):
        if field.name not in used and getattr(settings, field.name) != _default(field):
            raise UserError(f"--{field.name.replace('_', '-')} has no effect on {where}: leave it out")


def refuse_unused_attacks(questions: Sequence[Audit], attacks: Sequence[Attack] | None) -> None:
    """Refuse attacks for audits of which none takes any, or each has its own.

    Raises:
        UserError: naming the audits.
    """
    if attacks and all(new is old for new, old in zip(given_audits(questions, attacks), questions, strict=True)):
        raise UserError(
            f"--attacks has no effect on the audits {_names(questions)}, which take none or have their own: leave it "
            "out, or name an audit that takes attacks, such as robustness"
        )


def refuse_unused_threat(things: Sequence[Audit | Perturbation], threat: Threat | None) -> None:
    """Refuse a threat for audits or attacks of which each has its own, or that know none.

    Raises:
        UserError: naming them.
    """
    if threat is not None and resolve_threats(things, threat) is things:
        raise UserError(f"--threat has no effect on {_names(things)}, with a threat of its own or none: leave it out")


def refuse_given(function: Callable[..., Any], values: Mapping[str, Any], where: str) -> None:
    """Refuse parameters of a job that were given although nothing is going to read them.

    Args:
        function: the job.
        values: the parameters that are not read, by name.
        where: what they would be about.

    Raises:
        UserError: naming the first.
    """
    for name, value in values.items():
        if value != inspect.signature(function).parameters[name].default:
            raise UserError(f"--{name.replace('_', '-')} has no effect {where}: leave it out")


def _names(things: Sequence[Audit | Perturbation]) -> str:
    return ", ".join(thing.label() for thing in things)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
