"""The registered names of each role, read off the decorators in the package's files."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib.metadata import entry_points

from buttress.cli.static.source import bases, files_below, path_of, resolve, source
from buttress.registry import ROLES, Registry

BASES = {
    "Perturbation": "attacks",
    "Defence": "defences",
    "Audit": "audits",
    "Monitor": "monitors",
    "Verifier": "verifiers",
}
_DECORATED = r'(?m)^@{role}\("([^"]+)"\)\n(?:@.*\n)*(?:class|def) (\w+)'


def roles() -> list[str]:
    """The roles that can be listed, recipes among them."""
    return [*sorted(ROLES), "recipes"]


def names(role: str) -> list[str]:
    """The names of a role, sorted."""
    if role == "recipes":
        return sorted(path.stem for path in path_of("buttress").parent.glob("recipes/*.yaml"))
    return sorted({name for name, _, _ in _members(ROLES[role])} | _from_elsewhere(ROLES[role]))


def names_of(base: str, above: str) -> list[str]:
    """The names of a role's members that derive from the class ``base``; ``above`` is the role's own base class."""
    role = BASES[above]
    if base == above:
        return names(role)
    chosen = set()
    for name, module, member in _members(ROLES[role]):
        place = resolve(source(module), member)
        if place is not None and base in bases(place):
            chosen.add(name)
    return sorted(chosen | _from_elsewhere(ROLES[role]))


@functools.cache
def _members(role: Registry) -> list[tuple[str, str, str]]:
    """Name, module and class or function of each member."""
    return list(_scan(role))


def _scan(role: Registry) -> Iterator[tuple[str, str, str]]:
    decorated = re.compile(_DECORATED.replace("{role}", role.role))
    for module, path in files_below(role.package):
        for name, member in decorated.findall(path.read_text(encoding="utf-8")):
            yield name, module, member


def _from_elsewhere(role: Registry) -> set[str]:
    """The names that other installed packages add."""
    return {point.name for point in entry_points(group=role.package)}
