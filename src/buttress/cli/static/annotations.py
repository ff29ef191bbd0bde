"""What an annotation in a source file takes, as help writes it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from buttress.cli.static.members import BASES, names, names_of
from buttress.cli.static.source import Place, Source, bases, is_dataclass, resolve
from buttress.registry import ROLES

_WORDS = {"int": "N", "float": "X", "Path": "PATH", "str": "TEXT", "bool": "true|false"}


@dataclass(frozen=True)
class Kind:
    """What an option takes.

    Attributes:
        value: how a value is written: "N", "NAME,...", "linf|l2|l1".
        several: whether it takes any number of values.
        base: the base class of the members that it names; empty where it names none.
        choices: the names there are to choose from; empty where any value may be given.
        literal: whether ``value`` writes the choices out.
        group: the dataclass whose fields are options, if it is one.
    """

    value: str
    several: bool = False
    base: str = ""
    choices: tuple[str, ...] = ()
    literal: bool = False
    group: Place | None = None


def kind_of(where: Source, annotation: ast.expr) -> Kind:
    """The kind that an annotation stands for in a module."""
    kinds = [_one(where, part) for part in _alternatives(where, annotation)]
    if len(kinds) == 1:
        return kinds[0]
    named = next((kind for kind in kinds if kind.base), None)
    value = "|".join(dict.fromkeys(kind.value for kind in kinds))
    return Kind(value, any(kind.several for kind in kinds), named.base if named else "", named.choices if named else ())


def _alternatives(where: Source, annotation: ast.expr) -> list[ast.expr]:
    if isinstance(annotation, ast.BinOp):
        parts = [*_alternatives(where, annotation.left), *_alternatives(where, annotation.right)]
        return [part for part in parts if not (isinstance(part, ast.Constant) and part.value is None)]
    return [annotation]


def _one(where: Source, annotation: ast.expr) -> Kind:
    if isinstance(annotation, ast.Name):
        return _named(where, annotation.id)
    if not isinstance(annotation, ast.Subscript):
        return Kind("VALUE")
    origin = annotation.value.id if isinstance(annotation.value, ast.Name) else ""
    parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if origin == "Literal":
        words = tuple(str(part.value) for part in parts if isinstance(part, ast.Constant))
        return Kind("|".join(words), choices=words, literal=True)
    if origin == "Annotated":  # with the registry whose names it takes
        inner, role = kind_of(where, parts[0]), getattr(parts[1], "attr", "")
        key = next(key for key, registry in ROLES.items() if registry.role == role)
        return Kind(inner.value, choices=tuple(names(key)))
    if origin in ("dict", "Mapping"):
        return Kind("'{KEY: VALUE}'")
    endless = isinstance(parts[-1], ast.Constant) and parts[-1].value is Ellipsis
    if origin == "tuple" and not endless:
        return Kind(",".join(["LOW", "HIGH"][: len(parts)]))
    item = kind_of(where, parts[0])
    value = f"{item.value},..." if item.base else "A,B,..."
    return Kind(value, True, item.base, item.choices)


def _named(where: Source, name: str) -> Kind:
    place = resolve(where, name)
    if place is None:
        return Kind(_WORDS.get(name, "VALUE"))
    if isinstance(place.node, ast.expr):  # another name for an annotation
        return kind_of(place.source, place.node)
    above = next((base for base in bases(place) if base in BASES), "")
    if above:
        return Kind("NAME", base=name, choices=tuple(names_of(name, above)))
    return Kind("VALUE" if not is_dataclass(place) else "", group=place if is_dataclass(place) else None)
