"""Options that would do nothing are refused: who types one believes in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from buttress.attacks import Attack, Perturbation
from buttress.audits import Audit
from buttress.defences import Defence
from buttress.engine.threat_resolution import resolve_threats, threats_in
from buttress.errors import UserError
from buttress.jobs.questions import given_audits
from buttress.threat import Threat
from buttress.training import TrainingConfig


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


def refuse_unused_threat(
    things: Sequence[Audit | Perturbation | Defence], threat: Threat | None, others: Sequence[Any] = ()
) -> None:
    """Refuse a threat for audits, attacks or defences of which each has its own, or that know none.

    Args:
        things: what it would be for, and what the error names.
        threat: the job's.
        others: that may take it, too, such as a training's monitors.

    Raises:
        UserError: naming them.
    """
    if threat is not None and not any(_takes_threat(thing, threat) for thing in (*things, *others)):
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


def refuse_unused_search(training: TrainingConfig, defence: Defence) -> None:
    """Refuse a precision of crafting for a method that crafts nothing.

    Raises:
        UserError: naming it.
    """
    if training.search_precision is not None and not defence.attacks_in_steps:
        raise UserError(
            f"--search-precision has no effect on {defence.label()}, which crafts nothing: leave it out, or give a "
            "defence that attacks, such as at"
        )


def refuse_twice(option: str, things: Iterable[Any]) -> None:
    """Refuse a list in which two are the same: the second would do again what the first has done.

    Args:
        option: as typed, without the dashes.
        things: attacks, audits, monitors; with other settings each is another.

    Raises:
        UserError: naming it.
    """
    seen: list[Any] = []
    for thing in things:
        if any(type(thing) is type(other) and thing == other for other in seen):
            raise UserError(f"--{option} has {_name(thing)} twice: leave one out, or give it other settings")
        seen.append(thing)


def _takes_threat(thing: Any, threat: Threat) -> bool:
    """Whether this threat and its absence make a difference."""
    if isinstance(thing, Defence):  # whose copies are never itself
        before, after = (list(threats_in(thing.within(given))) for given in (threat, None))
        return before != after
    return resolve_threats([thing], threat)[0] is not thing


def _name(thing: Any) -> str:
    return str(thing.label()) if hasattr(thing, "label") else type(thing).__name__


def _names(things: Sequence[Any]) -> str:
    return ", ".join(map(_name, things))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
