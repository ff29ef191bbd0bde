"""How a training method is named in a line: with all that it goes around."""

from __future__ import annotations

from buttress import registry
from buttress.defences.base.defence import Defence


def named(defence: Defence) -> str:
    """Its registered name (a user's own: the class's), and in brackets the methods inside: "awp(eps-warmup(at))"."""
    name = registry.defence.name_of(defence).rpartition(":")[2]
    inside = [named(value) for value in defence.settings().values() if isinstance(value, Defence)]
    return f"{name}({', '.join(inside)})" if inside else name
