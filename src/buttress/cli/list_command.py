"""The command ``list``: the roles, the members of one, or one member."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from buttress.cli.help_text import row
from buttress.cli.static.members import names, roles
from buttress.errors import UserError

USAGE = "usage: buttress list [ROLE [NAME]] [--json]"


def list_command(words: Sequence[str]) -> str:
    """The roles, the members of one, or all about one member, as text or JSON.

    Raises:
        UserError: for an unknown role or name, and for words that mean nothing here.
    """
    places = [word for word in words if not word.startswith("-")]
    flags = {word for word in words if word.startswith("-")}
    if len(places) > 2 or not flags <= {"--json"}:
        raise UserError(f"{USAGE}, ROLE one of {', '.join(roles())}; NAME may have wildcards, as in '*fgsm*'")
    if not places:
        counts = {role: len(names(role)) for role in roles()}
        return _json(counts) if flags else "".join(row(role, f"{count}", 14) for role, count in counts.items())
    from buttress.cli.listing import documentation, is_pattern, listing

    if len(places) == 2 and not flags and not is_pattern(places[1]):
        return documentation(*places) + "\n"
    rows = listing(*places)
    return _json(rows) if flags else _table(rows)


def _json(tree: Any) -> str:
    return json.dumps(tree, indent=1) + "\n"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    width = max((len(one["name"]) for one in rows), default=0)
    lines = []
    for one in rows:
        lines.append(f"{one['name']:<{width}}  {one['summary']}")
        if one.get("options"):
            options = (name if _long(value) else f"{name}={value}" for name, value in one["options"].items())
            lines.append(f"{'':<{width}}    {', '.join(options)}")
        if one.get("paper"):
            before = f", and first {one['preparation']}" if one["preparation"] else ""
            ours = f"; reconstruction: {one['reconstruction']}" if one["reconstruction"] else ""
            lines.append(f"{'':<{width}}    {one['paper']}; {_cost(one)}{before}{ours}")
    return "\n".join(lines) + "\n"


def _long(value: object) -> bool:
    return value is None or len(str(value)) > 20


def _cost(one: dict[str, Any]) -> str:
    if one["cost"] is None:
        return str(one["cost_hangs_on"] or "unknown cost")
    return f"{one['cost']:.3g} x the passes of standard training"
