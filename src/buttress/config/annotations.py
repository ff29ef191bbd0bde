"""What an annotation allows: its alternatives, whether it is a list, and its name in words."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from buttress.config.roles import role_of
from buttress.errors import UserError

REQUIRED = inspect.Parameter.empty
_UNIONS = (typing.Union, types.UnionType)
_LISTS: tuple[Any, ...] = (list, Sequence, Collection, Iterable)
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a class or a function."""

    annotation: Any
    default: Any = REQUIRED
    positional: bool = False


@functools.cache
def parameters(kind: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a class or a function by name; those behind ``**`` are those of the class above."""
    result: dict[str, Parameter] = {}
    factories = {f.name: f.default_factory for f in fields(kind)} if is_dataclass(kind) else {}
    hints = _hints(kind)
    for p in inspect.signature(kind).parameters.values():
        if p.kind is p.VAR_KEYWORD and isinstance(kind, type):
            above = next(k for k in kind.__mro__[1:] if "__init__" in vars(k))
            result |= {name: one for name, one in parameters(above).items() if name not in result}
        elif p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            factory: Any = factories.get(p.name, MISSING)
            default = p.default if factory is MISSING else factory()
            annotation = hints.get(p.name, Any)
            if default is None and not accepts_none(annotation):  # what a class fills in itself
                annotation = annotation | None
            result[p.name] = Parameter(annotation, default, p.kind is p.POSITIONAL_OR_KEYWORD)
    return result


def _hints(kind: Callable[..., Any]) -> dict[str, Any]:
    constructor = kind.__init__ if isinstance(kind, type) else kind  # type: ignore[misc]  # of the class as it is
    try:
        return typing.get_type_hints(kind if is_dataclass(kind) else constructor)
    except NameError as error:
        reason = f"its annotations name {error.name!r}, which its file does not import at run time"
        raise UserError(f"the options of {kind.__name__} cannot be read: {reason}") from None


def alternatives(annotation: Any) -> list[Any]:
    """The types that an annotation allows, None left out."""
    if typing.get_origin(annotation) not in _UNIONS:
        return [annotation]
    return [part for part in typing.get_args(annotation) if part is not type(None)]  # unions in unions are flat already


def accepts_none(annotation: Any) -> bool:
    """Whether None is a value."""
    kinds = typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)
    return any(kind in (None, type(None), Any) for kind in kinds)


def item_of(kind: Any) -> Any:
    """The type of one of any number of values; None where one value is taken, or a fixed number of them."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if (origin is tuple and arguments[-1:] == (Ellipsis,)) or origin in _LISTS:
        return arguments[0]
    return Any if kind in _LISTS or kind is tuple else None


def takes_several(annotation: Any) -> bool:
    """Whether any number of values may be given."""
    return any(item_of(kind) is not None for kind in alternatives(annotation))


def is_group(kind: Any) -> bool:
    """Whether this is a dataclass of plain settings, such as a threat, and no member of a role."""
    return isinstance(kind, type) and is_dataclass(kind) and role_of(kind) is None


def is_mapping(kind: Any) -> bool:
    """Whether this takes names and values."""
    return kind in (dict, Mapping) or typing.get_origin(kind) in (dict, Mapping)


def is_importable(kind: Any) -> bool:
    """Whether a user's own class or function may be named: a function, or a class that is no plain value."""
    if kind is Callable or typing.get_origin(kind) is Callable:
        return True
    return isinstance(kind, type) and kind not in (*_WORDS, dict, list, tuple, object, Any)


def in_words(annotation: Any) -> str:
    """What an annotation allows: "a whole number", "one of linf, l2, l1"."""
    words = dict.fromkeys(_one_in_words(kind) for kind in alternatives(annotation))
    return " or ".join(words)


def _one_in_words(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if item_of(kind) is not None:
        return "values such as a,b"
    if typing.get_origin(kind) is tuple:
        return "values such as 0,1"
    if is_mapping(kind):
        return "a mapping such as '{key: value}'"
    role = role_of(kind)
    if role is not None:
        return f"the name of {'an' if role.role[0] in 'aeiou' else 'a'} {role.role}"
    return _WORDS.get(kind) or f"a {getattr(kind, '__name__', 'value')}"
