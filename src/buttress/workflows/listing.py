"""What there is of each role, and which recipes there are."""

from __future__ import annotations

import inspect
from typing import Any

from buttress import registry
from buttress.defences import Defence
from buttress.errors import UserError
from buttress.workflows.claims.recipe import recipes


def listing(role: str) -> list[dict[str, Any]]:
    """Name, first sentence, options and place of every member of a role; of recipes whether they hold a claim.

    Of defences also the ``paper``, the ``cost`` with default settings as a multiple of standard training (None where
    unknown; ``cost_hangs_on`` tells what it hangs on where the data decide), in ``preparation`` what is trained before
    and not counted in that, and in ``reconstruction`` what is not the published method.

    Raises:
        UserError: for an unknown role.
    """
    if role == "recipes":
        return [{"name": r.name, "summary": r.summary, "claim": r.claim is not None} for r in recipes()]
    if role not in registry.ROLES:
        known = sorted([*registry.ROLES, "recipes"])
        raise UserError(f"there is no role {role!r}; {registry.nearest(role, known)}")
    members = registry.ROLES[role]
    rows = [_describe(name, members.get(name)) for name in members.names()]
    return [row | _method(members.get(row["name"])) for row in rows] if role == "defences" else rows


def _describe(name: str, member: Any) -> dict[str, Any]:
    text = inspect.getdoc(member) or ""
    parameters = inspect.signature(member).parameters.values()
    options = {p.name: _plain(p.default) for p in parameters if p.name != "seed"}
    return {
        "name": name,
        "summary": " ".join(text.split("\n\n")[0].split()),
        "options": options,
        "class": f"{member.__module__}.{member.__qualname__}",
    }


def _method(member: type[Defence]) -> dict[str, Any]:
    made = member()
    told = {"paper": made.paper, "reconstruction": made.reconstruction, "preparation": made.preparation}
    cost = made.cost
    return {**told, "cost": None if cost is None else cost.relative, "cost_hangs_on": made.cost_hangs_on}


def _plain(default: Any) -> Any:
    """A default as JSON; None where there is none, a text for what is no number or text."""
    if default is inspect.Parameter.empty or default in (None, ()):
        return None
    return default if isinstance(default, bool | int | float | str) else str(default)
