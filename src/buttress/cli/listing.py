"""What there is of each role, and which recipes there are."""

from __future__ import annotations

import inspect
from fnmatch import fnmatchcase
from typing import Any

from buttress import registry
from buttress.claims.recipe import Recipe, find, recipes
from buttress.cli.help_text import filled, row
from buttress.cli.static.options import entries
from buttress.config.option_errors import flag
from buttress.config.spec import Spec, place
from buttress.defences import Defence
from buttress.errors import UserError


def listing(role: str, name: str | None = None) -> list[dict[str, Any]]:
    """Name, first sentence, options and place of a role's members; of recipes whether they hold a claim.

    ``name`` chooses one member, or by wildcards some.

    Of defences also the ``paper``, the ``cost`` with default settings as a multiple of standard training (None where
    unknown; ``cost_hangs_on`` tells what it hangs on where the data decide), in ``preparation`` what is trained before
    and not counted in that, and in ``reconstruction`` what is not the published method.

    Raises:
        UserError: for an unknown role or name, and for wildcards that match nothing.
    """
    if role == "recipes":
        if name is not None and not is_pattern(name):
            return [_recipe(find(name))]
        known = {recipe.name: recipe for recipe in recipes()}
        return [_recipe(known[each]) for each in _matching(role, name, list(known))]
    members = _members(role)
    chosen = [name] if name is not None and not is_pattern(name) else _matching(role, name, members.names())
    rows = [_describe(each, members.get(each)) for each in chosen]
    return [row | _method(row["name"], members.get(row["name"])) for row in rows] if role == "defences" else rows


def is_pattern(name: str) -> bool:
    """Whether this has wildcards in it: ``*fgsm*``."""
    return any(sign in name for sign in "*?[")


def _matching(role: str, pattern: str | None, names: list[str]) -> list[str]:
    chosen = [name for name in names if pattern is None or fnmatchcase(name, pattern)]
    if not chosen and pattern is not None:
        raise UserError(f"none of the {role} matches {pattern!r}; {registry.nearest(pattern.strip('*?'), names)}")
    return chosen


def _recipe(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.name, "summary": recipe.summary, "claim": recipe.claim is not None}


def documentation(role: str, name: str) -> str:
    """A member in full: its docstring with the meaning of its options, and their defaults; of a recipe its text.

    Raises:
        UserError: for an unknown role or name.
    """
    if role == "recipes":
        return find(name).path.read_text().rstrip()
    member = _members(role).get(name)
    row = _describe(name, member)
    defaults = ", ".join(key if value is None else f"{key}={value}" for key, value in row["options"].items())
    return f"{name}: {row['class']}\n\n{inspect.getdoc(member) or ''}\n\nDefaults: {defaults or 'none'}"


def member_help(spec: Spec) -> str:
    """The options of a member as they are typed behind the option that names it."""
    kind, meanings = spec.kind, entries(inspect.getdoc(spec.kind) or "")
    text = f"{place(kind)}\n\n{filled((inspect.getdoc(kind) or '').partition(chr(10))[0])}\n"
    for name, parameter in spec.known.items():
        default = _plain(parameter.default)
        meaning = meanings.get(name, "").rstrip(".") + ("" if default is None else f" (default {default})")
        text += row(f"{flag((*spec.path, name))}", meaning)
    return text


def _members(role: str) -> registry.Registry:
    if role not in registry.ROLES:
        known = sorted([*registry.ROLES, "recipes"])
        raise UserError(f"there is no role {role!r}; {registry.nearest(role, known)}")
    return registry.ROLES[role]


def _describe(name: str, member: Any) -> dict[str, Any]:
    if not (inspect.isclass(member) or inspect.isroutine(member)):
        raise UserError(f"{name!r} must be a class or a function; it is a {type(member).__name__}")
    text = inspect.getdoc(member) or ""
    try:
        parameters = inspect.signature(member).parameters.values()
    except ValueError:  # of what is written in C
        raise UserError(f"{name!r} does not tell which options it has") from None
    options = {p.name: _plain(p.default) for p in parameters if p.name != "seed"}
    return {
        "name": name,
        "summary": " ".join(text.split("\n\n")[0].split()),
        "options": options,
        "class": f"{member.__module__}.{member.__qualname__}",
    }


def _method(name: str, member: Any) -> dict[str, Any]:
    if not (inspect.isclass(member) and issubclass(member, Defence)):
        raise UserError(f"{name!r} must be a Defence; it is {member!r}")
    method = member()
    row = {"paper": method.paper, "reconstruction": method.reconstruction, "preparation": method.preparation}
    cost = method.cost
    return {**row, "cost": None if cost is None else cost.relative, "cost_hangs_on": method.cost_hangs_on}


def _plain(default: Any) -> Any:
    """A default as JSON; None where there is none, a text for what is no number or text."""
    if default is inspect.Parameter.empty or default in (None, ()):
        return None
    return default if isinstance(default, bool | int | float | str) else str(default)
