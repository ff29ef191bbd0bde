"""A job's options, read off its signature and docstring: what help, messages and the reading of words go by."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.config.short_forms import ROLE_OF
from buttress.registry import Registry

REQUIRED = inspect.Parameter.empty
_ENTRY = re.compile(r"    (\w+): (.*)")


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: as in a YAML file, dots between levels: "threat.eps".
        type: its annotation, without None.
        default: its default, or ``REQUIRED``.
        text: what it means.
        group: the heading it stands under; empty for the job's own.
        positional: whether it may be given without its name.
        optional: whether None is a value.
    """

    name: str
    type: Any
    default: Any
    text: str
    group: str = ""
    positional: bool = False
    optional: bool = False

    @property
    def flag(self) -> str:
        """As typed: "--threat.eps", "--data-dir"."""
        return "--" + self.name.replace("_", "-")

    @property
    def several(self) -> bool:
        """Whether it takes any number of values."""
        arguments = typing.get_args(self.type)
        endless = typing.get_origin(self.type) is tuple and arguments[-1:] == (Ellipsis,)
        return typing.get_origin(self.type) is list or endless

    @property
    def each(self) -> Any:
        """The type of one of its values."""
        return typing.get_args(self.type)[0] if self.several else self.type

    @property
    def role(self) -> Registry | None:
        """The role whose members it names, if it does."""
        return ROLE_OF.get(self.name)


def options(job: Callable[..., Any], groups: Mapping[str, type], given: set[str]) -> list[Option]:
    """All options of a job, in order; those of a parameter in ``groups`` are flat, names in ``given`` no options."""
    hints, meanings = typing.get_type_hints(job), entries(inspect.getdoc(job) or "")
    found: list[Option] = []
    for parameter in inspect.signature(job).parameters.values():
        name, hint = parameter.name, hints[parameter.name]
        if name in given:
            continue
        if name in groups:
            title = (inspect.getdoc(groups[name]) or "").splitlines()[0].rstrip(".")
            found += [option for option in _fields(groups[name], "", title) if option.name not in given]
            continue
        kind, optional = _without_none(hint)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            found += _fields(kind, f"{name}.", _title(meanings.get(name, name)))
        else:
            positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            found.append(Option(name, kind, parameter.default, meanings.get(name, ""), "", positional, optional))
    return found


def _fields(group: type, prefix: str, title: str) -> list[Option]:
    hints, meanings = typing.get_type_hints(group), entries(inspect.getdoc(group) or "")
    found: list[Option] = []
    for field in dataclasses.fields(group):
        if not field.repr:  # for the jobs themselves
            continue
        hint, text = hints[field.name], meanings.get(field.name, "")
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found += _with_defaults(_fields(hint, f"{prefix}{field.name}.", _title(text)), field.default)
            continue
        kind, optional = _without_none(hint)
        default = field.default if field.default is not dataclasses.MISSING else None
        found.append(Option(prefix + field.name, kind, default, text, title, optional=optional))
    return found


def _with_defaults(found: list[Option], default: object) -> list[Option]:
    """The options of a nested group, whose defaults are those of the value that stands there."""
    own = [(option, option.name.rpartition(".")[2]) for option in found]
    return [dataclasses.replace(option, default=getattr(default, name, option.default)) for option, name in own]


def entries(doc: str) -> dict[str, str]:
    """The ``Args:`` of a docstring in Google style, by name, each in one line."""
    found: dict[str, str] = {}
    name = ""
    for line in doc.partition("\nArgs:\n")[2].splitlines():
        if line and not line.startswith(" "):
            break
        entry = _ENTRY.fullmatch(line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else hint, len(kinds) < len(typing.get_args(hint))


def _title(text: str) -> str:
    text = text.rstrip(".")
    return text[:1].upper() + text[1:]


def expected(kind: Any) -> str:
    """A type in words: "a whole number", "one of linf, l2, l1"."""
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    return words.get(kind, "")
