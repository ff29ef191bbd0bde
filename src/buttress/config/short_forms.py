"""The short forms in which recipes and users name things: members of a role, fractions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from buttress import registry
from buttress.config.default_threats import completed
from buttress.errors import UserError
from buttress.threat import Threat

AVERAGES = {"ema": "EMA", "swa": "SWA", "fawa": "FAWA"}  # what the option ``average`` takes beside a number
_OWN = re.compile(r"(?:[^:\s]+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")
_FRACTION = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)")

# The options whose values are members of a role, by the last part of their name.
ROLE_OF = {
    "attack": registry.attack,
    "attacks": registry.attack,
    "by": registry.attack,
    "noises": registry.attack,
    "perturbations": registry.attack,
    "corruptions": registry.attack,
    "styles": registry.attack,
    "unseen": registry.attack,
    "defence": registry.defence,
    "base": registry.defence,
    "audits": registry.audit,
    "monitors": registry.monitor,
}


def fraction(text: str) -> str:
    """``8/255`` as a number; anything else as it is."""
    found = _FRACTION.fullmatch(text.strip())
    if found is None:
        return text
    if float(found[2]) == 0:
        raise UserError(f"{text} divides by zero")
    return repr(float(found[1]) / float(found[2]))


def class_path(role: registry.Registry, name: str) -> str:
    """The import path of a registered name, of ``package.module:Class`` or of ``file.py:Class``."""
    member = role.get(name)
    if not isinstance(member, type):
        raise UserError(f"{name!r} is a {type(member).__name__}: {role.role}s are classes")
    return f"{member.__module__}.{member.__qualname__}"


def member(role: registry.Registry, name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A member by its class and options, its own defaults written out.

    The typed parser keeps what the member named before was set to where the new one has an option of that name; with
    the defaults written out, whoever is named starts from its own.
    """
    path = class_path(role, name)
    kind = role.get(name)
    return {"class_path": path, "init_args": {**_defaults(kind), **completed(kind, options or {})}}


def _defaults(member: type) -> dict[str, Any]:
    """The defaults of a class that are plain data; of None only a threat's: elsewhere the parser reads it as a text."""
    named = {p.name: p.default for p in inspect.signature(member).parameters.values()}
    plain = {name: value for name, value in named.items() if _is_plain(value)}
    return {name: _written(value) for name, value in plain.items() if value is not None or name == "threat"}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str | Threat)


def _written(value: Any) -> Any:
    if isinstance(value, Threat):
        return {f.name: _written(getattr(value, f.name)) for f in fields(value)}
    return [_written(part) for part in value] if isinstance(value, list | tuple) else value


def is_own(text: str) -> bool:
    """Whether this has the form of ``package.module:Thing`` or ``file.py:Thing``."""
    return _OWN.fullmatch(text) is not None


def average_path(name: str) -> str:
    """The import path of an average of the weights by its name, in small letters or large.

    Raises:
        UserError: for another name.
    """
    known = AVERAGES.get(name.lower())
    if known is None:
        hint = registry.nearest(name, list(AVERAGES))
        raise UserError(f"there is no average {name!r} of the weights; {hint}, or a number, the decay of an EMA")
    return f"buttress.training.averaging.{known}"


def own_path(text: str) -> str:
    """The import path of ``package.module:Thing`` or ``file.py:Thing``."""
    thing = registry.import_thing(text)
    return f"{thing.__module__}.{thing.__qualname__}"


def spelt_out(key: str, value: Any, within: bool = False) -> Any:
    """A tree's short forms spelt out: a member's options stand beside its name, ``{name: pgd, steps: 40}``.

    Args:
        key: the option that has this value.
        value: texts, numbers, lists and mappings.
        within: whether it is an option of a member, where what is not a role's name may still be a user's own thing.
    """
    role = ROLE_OF.get(key)
    if isinstance(value, list):
        return [spelt_out(key, part, within) for part in value]
    if isinstance(value, dict):
        below = within or role is not None
        inside = {str(name).replace("-", "_"): spelt_out(str(name), part, below) for name, part in value.items()}
        named = str(inside.get("class_path", inside.get("name", "")))
        if key == "average" and "name" in inside:
            return {"class_path": average_path(inside.pop("name")), "init_args": inside}
        if role is None and not (within and is_own(named)):
            return inside
        if "class_path" in inside:  # with a colon it is a user's own, as --print-config writes it
            return {**inside, "class_path": own_path(named) if is_own(named) else named}
        if "name" not in inside:
            return inside
        del inside["name"]
        if role is None:
            return {"class_path": own_path(named), "init_args": inside}
        return member(role, named, inside)
    if isinstance(value, str):
        if role is not None:
            return member(role, value)
        if within and key not in ("class_path", "name") and is_own(value):
            return own_path(value)
        number = fraction(value)
        if key == "average" and not within and value.lower() not in ("none", "null") and number == value:
            return {"class_path": value if "." in value else average_path(value)}
        return value if number == value else float(number)
    return value
