"""From words and plain data to values under an annotation, short forms included: names of members, lists, fractions.

The command line, configuration files and recipes all go through `read`, so that they mean the same by the same.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from buttress import registry
from buttress.config.annotations import (
    accepts_none,
    alternatives,
    in_words,
    is_group,
    is_importable,
    is_mapping,
    item_of,
)
from buttress.config.option_errors import OptionPath, UnnamedMemberError, WrongMemberError, WrongValueError, flag
from buttress.config.roles import role_of
from buttress.config.spec import Spec, built, is_built, new_spec
from buttress.config.typed_parser import RefusedError, parsed_data, parsed_text
from buttress.errors import UserError
from buttress.plain_data import read_yaml
from buttress.threat import Threat

T = TypeVar("T")
_OWN = re.compile(r"(?:[^:\s]+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")
_FRACTION = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\s*/\s*\d+(\.\d+)?)?")
_SPELLINGS = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}  # as YAML has them
_NOTHING = ("none", "null")


def fraction(text: str) -> str:
    """``8/255`` as a number; anything else as it is."""
    match = _FRACTION.fullmatch(text.strip())
    if match is None:
        return text
    if float(match[2]) == 0:
        raise UserError(f"{text} divides by zero")
    return repr(float(match[1]) / float(match[2]))


def is_own(text: str) -> bool:
    """Whether this has the form of ``package.module:Thing`` or ``file.py:Thing``."""
    return _OWN.fullmatch(text) is not None


def read(annotation: Any, value: Any, path: OptionPath, owner: Spec | None = None) -> Any:
    """A value for an option: a `Spec` where an object is to be built, a list of them, or plain data.

    Args:
        annotation: of the parameter.
        value: a text, as typed or in a file, or other plain data of a file.
        path: the option, for messages.
        owner: whose option it is.

    Raises:
        UserError: an `OptionError`, or that of a registry for a name that it does not have.
    """
    if is_built(value):
        return value
    if value is None or (isinstance(value, str) and value.lower() in _NOTHING):
        if accepts_none(annotation):
            return None
        if value is None:
            raise WrongValueError(path, in_words(annotation), value)
    kinds = alternatives(annotation)
    if isinstance(value, str):
        if is_own(value) and any(is_importable(kind) and role_of(kind) is None for kind in kinds):
            return _own(kinds, value, {}, path)
        if value[:1] in ("[", "{") and not set(kinds) <= {str}:
            return read(annotation, _tree(value, annotation, path), path, owner)
        if "," in value:
            kinds = sorted(kinds, key=lambda kind: item_of(kind) is None)  # lists first
    errors: list[UserError] = []
    for kind in kinds:
        try:
            return _one(kind, value, path, owner)
        except UserError as error:
            errors.append(error)
    # What one alternative says of an option further in, or of a name, says more than that none of them fits.
    telling = [error for error in errors if not (isinstance(error, WrongValueError) and error.path == path)]
    if telling or len(errors) == 1:
        raise [*errors, *telling][-1]
    raise WrongValueError(path, in_words(annotation), value)


def _tree(text: str, annotation: Any, path: OptionPath) -> Any:
    try:
        return read_yaml(text)
    except ValueError:
        raise WrongValueError(path, in_words(annotation), text) from None


def _one(kind: Any, value: Any, path: OptionPath, owner: Spec | None) -> Any:
    """A value under one alternative of an annotation."""
    item = item_of(kind)
    if item is not None:
        return _several(kind, item, value, path, owner)
    if role_of(kind) is not None:
        return _member(kind, value, path)
    if is_group(kind):
        return _group(kind, value, path, owner)
    if isinstance(value, Mapping) and is_importable(kind):
        return _object(kind, value, path)
    if is_importable(kind):
        raise WrongValueError(path, in_words(kind), value)
    if isinstance(value, str) and not is_mapping(kind):
        parts = [part.strip() for part in value.split(",")]
        if kind is Any and len(parts) > 1 and all(map(_NUMBER.fullmatch, parts)):
            return [read(kind, part, path) for part in parts]
        if getattr(kind, "__origin__", None) is tuple:
            return _leaf(kind, [read(Any, part, path) for part in parts], path, value)
        return _leaf(kind, value, path, value)
    return _leaf(kind, numbers(value), path, value)


def _leaf(kind: Any, value: Any, path: OptionPath, original: Any) -> Any:
    if isinstance(value, str) and ("\0" in value or (kind is Path and not value.strip())):
        raise WrongValueError(path, in_words(kind), original)
    try:
        if not isinstance(value, str):
            return parsed_data(kind, value)
        return parsed_text(kind, value if kind is str else _SPELLINGS.get(value.lower()) or fraction(value))
    except RefusedError:
        raise WrongValueError(path, in_words(kind), original) from None


def numbers(tree: Any) -> Any:
    """Plain data with fractions as numbers, at any depth, and names with underscores."""
    if isinstance(tree, Mapping):
        return {str(name).replace("-", "_"): numbers(part) for name, part in tree.items()}
    if isinstance(tree, list):
        return [numbers(part) for part in tree]
    if isinstance(tree, str):
        number = fraction(tree)
        return tree if number == tree else float(number)
    return tree


def _several(kind: Any, item: Any, value: Any, path: OptionPath, owner: Spec | None) -> Any:
    if isinstance(value, str):
        value = value.split(",")
    elif isinstance(value, Mapping):  # one member, written out
        value = [value]
    elif not isinstance(value, list | tuple):
        raise WrongValueError(path, in_words(kind), value)
    items = [read(item, part, path, owner) for part in value]
    return tuple(items) if getattr(kind, "__origin__", None) is tuple else items


def _member(base: Any, value: Any, path: OptionPath) -> Spec:
    """A member of a role by its name, or by a mapping with its name and options."""
    role = role_of(base)
    assert role is not None
    options: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        name, options = _name_and_options(value)
        if name is None:
            raise UnnamedMemberError(path, base.__name__.lower())
        kind = _by_class(role, name) if "class_path" in value else role.get(name)
    elif isinstance(value, str):
        kind = role.get(value)
    else:
        raise WrongValueError(path, in_words(base), value)
    if not isinstance(kind, type):
        raise UserError(
            f"{value if isinstance(value, str) else name!r} is a {type(kind).__name__}: {role.role}s are classes"
        )
    if not issubclass(kind, base):
        raise WrongMemberError(path, base.__name__.lower(), kind.__name__)
    if inspect.isabstract(kind):
        raise UnnamedMemberError(path, base.__name__.lower())
    return with_options(new_spec(kind, path), options)


def _name_and_options(tree: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """``{name: pgd, steps: 3}``, or as it is printed, ``{class_path: ..., init_args: {...}}``.

    Raises:
        UserError: for ``init_args`` that are no mapping.
    """
    if "class_path" in tree:
        options = tree.get("init_args") or {}
        if not isinstance(options, Mapping):
            raise UserError(f"init_args must map the options of {tree['class_path']} to values; got {options!r}")
        return str(tree["class_path"]), options
    return str(tree["name"]) if "name" in tree else None, {key: part for key, part in tree.items() if key != "name"}


def _by_class(role: registry.Registry, name: str) -> Any:
    """A class by its import path, or by its name alone where it is registered."""
    if "." in name or ":" in name:
        return _imported(name)
    return next((kind for kind in map(role.get, role.names()) if kind.__name__ == name), None) or role.get(name)


def _imported(name: str) -> Any:
    """A class by its import path, with a dot or a colon before its name.

    Raises:
        UserError: when there is none.
    """
    where, _, what = name.rpartition(".")
    if ":" in name or not where:
        return registry.import_thing(name)
    try:
        return getattr(importlib.import_module(where), what)
    except (ImportError, AttributeError):
        for role in registry.ROLES.values() if where.startswith("buttress.") else ():
            with suppress(AttributeError):  # a member that has another place than when the configuration was printed
                return role.attribute(where, what)
        raise UserError(f"class_path: there is no {name!r}") from None


def with_options(spec: Spec, options: Mapping[str, Any]) -> Spec:
    """The same spec, with these options set from plain data."""
    for key, value in options.items():
        name = str(key).replace("-", "_")
        if name == "explicit" and spec.kind is Threat:  # in configurations that earlier versions printed
            continue
        annotation = spec.parameter(name).annotation
        spec.options[name] = read(annotation, value, (*spec.path, name), spec.owner or spec)
    return spec


def _group(kind: Any, value: Any, path: OptionPath, owner: Spec | None) -> Spec:
    spec = new_spec(kind, path, owner)
    if not isinstance(value, Mapping):
        first = flag((*path, next(iter(spec.known))))
        raise WrongValueError(path, f"its options one by one, as in {first}", value)
    return with_options(spec, value)


def _object(kind: Any, value: Mapping[str, Any], path: OptionPath) -> Any:
    name, options = _name_and_options(value)
    if name is None or not (is_own(name) or "class_path" in value):
        raise WrongValueError(path, in_words(kind), dict(value))
    return _own([kind], name, options, path)


def _own(kinds: list[Any], name: str, options: Mapping[str, Any], path: OptionPath) -> Any:
    """A user's own function as it is, or an object of a user's own class."""
    thing = _imported(name)
    classes = tuple(kind for kind in kinds if isinstance(kind, type))
    if isinstance(thing, type) and issubclass(thing, classes):
        return with_options(new_spec(thing, path), options)
    return thing


def build(kind: Callable[..., T], tree: Any) -> T:
    """An object of ``kind`` from plain data, its types checked.

    Args:
        kind: a dataclass, or the base class of a role, which may be abstract: members are made of subclasses.
        tree: its settings; a member of a role as its name, or as a mapping with ``name`` and its options.

    Raises:
        UserError: in one line, for what does not fit.
    """
    role = role_of(kind)
    thing: T = built(read(kind, tree, (kind.__name__.lower() if role is None else role.role,)))
    return thing
