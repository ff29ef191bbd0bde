"""What there is of each role, and which recipes there are."""

from __future__ import annotations

import inspect
from typing import Any

from buttress import registry
from buttress.claims.recipe import find, recipes
from buttress.defences import Defence
from buttress.errors import UserError


def listing(role: str, name: str | None = None) -> list[dict[str, Any]]:
    """Name, first sentence, options and place of a role's members, or of one; of recipes whether they hold a claim.

    Of defences also the ``paper``, the ``cost`` with default settings as a multiple of standard training (None where
    unknown; ``cost_hangs_on`` tells what it hangs on where the data decide), in ``preparation`` what is trained before
    and not counted in that, and in ``reconstruction`` what is not the published method.

    Raises:
        UserError: for an unknown role or name.
    """
    if role == "recipes":
        known = recipes() if name is None else [find(name)]
        return [{"name": r.name, "summary": r.summary, "claim": r.claim is not None} for r in known]
    members = _members(role)
    rows = [_describe(each, members.get(each)) for each in (members.names() if name is None else [name])]
    return [row | _method(row["name"], members.get(row["name"])) for row in rows] if role == "defences" else rows


def documentation(role: str, name: str) -> str:
    """All that a member says of itself: its options with their meanings, and their defaults; of a recipe its text.

    Raises:
        UserError: for an unknown role or name.
    """
    if role == "recipes":
        return find(name).path.read_text().rstrip()
    member = _members(role).get(name)
    row = _describe(name, member)
    defaults = ", ".join(key if value is None else f"{key}={value}" for key, value in row["options"].items())
    return f"{name}: {row['class']}\n\n{inspect.getdoc(member) or ''}\n\nDefaults: {defaults or 'none'}"


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
    made = member()
    told = {"paper": made.paper, "reconstruction": made.reconstruction, "preparation": made.preparation}
    cost = made.cost
    return {**told, "cost": None if cost is None else cost.relative, "cost_hangs_on": made.cost_hangs_on}


def _plain(default: Any) -> Any:
    """A default as JSON; None where there is none, a text for what is no number or text."""
    if default is inspect.Parameter.empty or default in (None, ()):
        return None
    return default if isinstance(default, bool | int | float | str) else str(default)
