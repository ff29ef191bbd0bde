"""Modules of the package as their syntax trees, and names followed through imports."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import buttress

_ROOT = Path(buttress.__file__).parent
Definition = ast.ClassDef | ast.FunctionDef | ast.expr


@dataclass
class Source:
    """One module: what is defined in it by name, and where imported names come from."""

    name: str
    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: (module, its name there)


@dataclass(frozen=True)
class Place:
    """A definition and the module that it is in."""

    source: Source
    node: Definition


def path_of(module: str) -> Path:
    """The file of a module of the package.

    Raises:
        FileNotFoundError: when the package has no such module.
    """
    base = _ROOT.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"buttress has no module {module}")


def files_below(package: str) -> Iterator[tuple[str, Path]]:
    """The modules of a package, at any depth, and their files."""
    folder = _ROOT.joinpath(*package.split(".")[1:])
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(_ROOT).with_suffix("").parts
        yield ".".join(("buttress", *(part for part in parts if part != "__init__"))), path


@functools.cache
def source(module: str) -> Source:
    """A module by its full name."""
    result = Source(module)
    for node in ast.parse(path_of(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            result.definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            result.definitions |= _assigned(node.targets[0], node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            result.definitions[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "buttress":
            result.imports |= {name.asname or name.name: (node.module or "", name.name) for name in node.names}
    return result


def _assigned(target: ast.expr, value: ast.expr) -> dict[str, Definition]:
    """The names that an assignment gives values, in ``a, b = 1, 2`` too."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
        return {name.id: part for name, part in pairs if isinstance(name, ast.Name)}
    return {target.id: value} if isinstance(target, ast.Name) else {}


def resolve(where: Source, name: str) -> Place | None:
    """What a name means in a module, followed through imports; None for what is not the package's own."""
    if name in where.definitions:
        return Place(where, where.definitions[name])
    if name not in where.imports:
        return None
    module, its_name = where.imports[name]
    try:
        return resolve(source(module), its_name)
    except FileNotFoundError:
        return None


def _above(place: Place) -> Iterator[Place]:
    """The package's own classes that a class names as its bases."""
    if isinstance(place.node, ast.ClassDef):
        for base in place.node.bases:
            above = resolve(place.source, base.id) if isinstance(base, ast.Name) else None
            if above is not None:
                yield above


def bases(place: Place) -> Iterator[str]:
    """The names of a class and of all the package's classes above it."""
    if isinstance(place.node, ast.ClassDef):
        yield place.node.name
        for above in _above(place):
            yield from bases(above)


def annotated(place: Place) -> dict[str, tuple[Source, ast.AnnAssign]]:
    """The annotated names in a class and above it, in the order of a dataclass's fields, each with its module."""
    names: dict[str, tuple[Source, ast.AnnAssign]] = {}
    for above in reversed(list(_above(place))):
        names |= annotated(above)
    for node in place.node.body if isinstance(place.node, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = (place.source, node)
    return names


def docstring(place: Place) -> str:
    """A class's docstring, or the one above it."""
    own = ast.get_docstring(place.node) if isinstance(place.node, ast.ClassDef) else None
    return own or next((text for text in map(docstring, _above(place)) if text), "")


def is_dataclass(place: Place) -> bool:
    """Whether this is a class under the decorator ``dataclass``."""
    if not isinstance(place.node, ast.ClassDef):
        return False
    names = [d.func if isinstance(d, ast.Call) else d for d in place.node.decorator_list]
    return any(isinstance(name, ast.Name) and name.id == "dataclass" for name in names)
