"""Recipes: YAML files, and the block in which one states a published claim."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from buttress.errors import UserError
from buttress.plain_data import read_yaml
from buttress.registry import close_names, nearest

FOLDER = Path(__file__).parents[1] / "recipes"
KINDS = ("table", "profiles", "layer effects", "gains")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What was published, what must hold of it, and the experiment that tests it.

    Args:
        source: paper and table.
        statement: the claim in a sentence.
        kind: "table" (accuracy of networks over budgets), "profiles" (displacement of layers), "layer effects"
            (which measure of a layer foretells what) or "gains" (differences read off the results of other claims).
        checks: what must hold; their form depends on the kind. Of a table: ``better`` and ``than``, two rows; ``at``, a
            budget or R&G, or ``figure``, the name of one; ``by``, points that the difference must exceed (0; negative
            for what may be lost); other forms are in `check.Check`.
        published: the numbers, by row (a table) or by network and perturbation (profiles).
        attack: label of the attack under which a table's numbers were published.
        silent: what the source leaves out, and what was done about it.
        experiment: settings that all scales share.
        scales: what each scale changes in them, and ``note``: what that leaves of the original.
    """

    source: str
    statement: str
    kind: str
    checks: list[dict[str, Any]]
    published: dict[str, Any] = field(default_factory=dict)
    attack: str = "FGSM"
    silent: list[str] = field(default_factory=list)
    experiment: dict[str, Any] = field(default_factory=dict)
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)

    def at_scale(self, scale: str) -> tuple[dict[str, Any], str]:
        """The experiment's settings at a scale, and its note.

        Raises:
            UserError: for a scale that the recipe does not have.
        """
        if scale not in self.scales:
            raise UserError(f"the recipe has no scale {scale!r}; {nearest(scale, sorted(self.scales))}")
        changes = dict(self.scales[scale])
        note = str(changes.pop("note", ""))
        return merge(self.experiment, changes), note


@dataclass(frozen=True)
class Recipe:
    """A recipe by its name, and its file; ``claim`` is None for one that is an everyday job."""

    name: str
    summary: str
    claim: Claim | None
    path: Path


def recipes() -> list[Recipe]:
    """All recipes that come with the package, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem)]


def find(name: str) -> Recipe:
    """A recipe by its name or by the path of a YAML file.

    Raises:
        UserError: when there is none, or when it is no recipe.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = [file.stem for file in sorted(FOLDER.glob("*.yaml"))]
        close = close_names(name, names)
        hint = f"did you mean {close[0]!r}?" if close else "buttress list recipes names them"
        raise UserError(f"there is no recipe {name!r}; {hint}")
    return _read(path)


def _read(path: Path) -> Recipe:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the recipe {path} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"the recipe {path} must map options to values; got a {type(tree).__name__}")
    claim = None if "claim" not in tree else from_mapping(Claim, tree["claim"], f"{path.name}: claim")
    if claim is not None and claim.kind not in KINDS:
        raise UserError(f"{path.name}: claim: there is no kind {claim.kind!r}; {nearest(claim.kind, list(KINDS))}")
    for line in () if claim is None else claim.silent:
        if not isinstance(line, str):
            raise UserError(f"{path.name}: claim: silent: a sentence with a colon needs quotes around it; got {line!r}")
    return Recipe(path.stem, str(tree.get("summary", "")), claim, path)


def from_mapping(kind: type[T], tree: Any, where: str) -> T:
    """A dataclass from a mapping.

    Raises:
        UserError: naming ``where`` and what is unknown or missing.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: a mapping of {', '.join(_names(kind))} was expected; got {tree!r}")
    names = _names(kind)
    for key in tree:
        if key not in names:
            raise UserError(f"{where}: there is no entry {key!r}; {nearest(str(key), names)}")
    try:
        return kind(**tree)
    except TypeError as error:
        raise UserError(f"{where}: {str(error).partition(' ')[2]}") from None


def _names(kind: Any) -> list[str]:
    return [f.name for f in fields(kind)]


def merge(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` with ``changes`` laid over it, mapping by mapping; both are left as they were."""
    result = copy.deepcopy(dict(tree))
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, Mapping):
            result[key] = merge(before, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def fill_blanks(tree: Any, values: Mapping[str, Any]) -> Any:
    """``tree`` with every text ``$name`` replaced by the value of that name; others stay as they are."""
    if isinstance(tree, Mapping):
        return {key: fill_blanks(part, values) for key, part in tree.items()}
    if isinstance(tree, list):
        return [fill_blanks(part, values) for part in tree]
    if isinstance(tree, str) and tree.startswith("$") and tree[1:] in values:
        return copy.deepcopy(values[tree[1:]])
    return tree


def blanks(tree: Any) -> set[str]:
    """The names that `fill_blanks` would replace."""
    if isinstance(tree, Mapping):
        return set().union(*(blanks(part) for part in tree.values()))
    if isinstance(tree, list):
        return set().union(*(blanks(part) for part in tree))
    return {tree[1:]} if isinstance(tree, str) and tree.startswith("$") else set()
