"""Threats that nobody gave, filled in wherever they are: in attacks, audits, monitors, defences and lists of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, Self, TypeVar, cast, runtime_checkable

from torch import Tensor

from buttress.threat import NOT_GIVEN, Threat

Thing = TypeVar("Thing")


@runtime_checkable
class _Within(Protocol):
    """What fills in its own threats: perturbations and defences."""

    def within(self, threat: Threat | None = None, usual: Threat = Threat()) -> Self: ...


def resolve_threats(thing: Thing, threat: Threat | None = None, usual: Threat = Threat()) -> Thing:
    """``thing`` with every threat that was not given filled in, and the data's box where no box was given.

    Args:
        thing: an attack, a noise, a defence, an audit, a monitor, or a list of these; anything else is returned as it
            is.
        threat: what the user gave for all of them, in the data's box; None where nothing was given.
        usual: what takes its place then, for what has no default of its own.
    """
    if isinstance(thing, list | tuple):
        parts = [resolve_threats(part, threat, usual) for part in thing]
        same = all(new is old for new, old in zip(parts, thing, strict=True))
        return thing if same else cast(Thing, type(thing)(parts))
    if isinstance(thing, type | Threat | Tensor | str | int | float):
        return thing
    if isinstance(thing, _Within):
        return thing.within(threat, usual)
    if not is_dataclass(thing):
        return thing
    # A monitor's threat that is None is that of the training.
    values = {f.name: value for f in fields(thing) if (value := getattr(thing, f.name)) is not None}
    changes = resolved_settings(values, {f.name: f.default for f in fields(thing)}, threat, usual)
    return replace(cast(Any, thing), **changes) if changes else thing


def threats_in(thing: Any) -> Iterator[Threat]:
    """All threats in what `resolve_threats` takes: its own, and those of attacks and defences inside."""
    if isinstance(thing, Threat):
        yield thing
    elif isinstance(thing, list | tuple):
        yield from (threat for part in thing for threat in threats_in(part))
    elif not isinstance(thing, type) and (is_dataclass(thing) or isinstance(thing, _Within)):
        modules = vars(thing).get("_modules", {})  # where a defence keeps the one that it goes around
        yield from threats_in([*vars(thing).values(), *modules.values()])


def resolved_settings(
    values: Mapping[str, Any], defaults: Mapping[str, Any], threat: Threat | None, usual: Threat
) -> dict[str, Any]:
    """Those of the ``values`` that change in `resolve_threats`; a threat was not given where it equals its default."""
    box = (threat or usual).box
    changes: dict[str, Any] = {}
    for name, value in values.items():
        new: Any
        if name == "threat" and value is NOT_GIVEN:
            new = threat or usual
        elif name == "box":
            new = box if value == Threat().box != box else value
        elif value is None or isinstance(value, bool | int | float | str):
            continue
        elif not isinstance(value, Threat):
            new = resolve_threats(value, threat, usual)
        elif value == defaults.get(name):
            new = default_threat(value, threat, usual)
        else:
            new = in_box(value, box)
        if new is not value:
            changes[name] = new
    return changes


def default_threat(default: Threat, threat: Threat | None, usual: Threat) -> Threat:
    """What a threat is that was not given: ``threat``, else a default of one's own, else the ``usual`` one."""
    if threat is not None:
        return threat
    return usual if default == Threat() else in_box(default, usual.box)


def in_box(threat: Threat, box: tuple[float, float] | None) -> Threat:
    """The threat in this box, the data's own, where its box was left at the default."""
    return replace(threat, box=box) if threat.box == Threat().box != box else threat
