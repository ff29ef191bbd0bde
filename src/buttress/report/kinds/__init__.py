"""How findings of each kind are drawn: one file per kind.

A renderer is a function from the findings of one kind, by network, to a `Section`. A kind without one of its own is
drawn as tables. Renderers from outside come as entry points of the group ``buttress.report.kinds``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from buttress.audits.base.finding import Finding
from buttress.registry import Registry
from buttress.report.text import percent, points

renderer = Registry("renderer", "buttress.report.kinds")


@dataclass(frozen=True)
class Key:
    """A figure for the top of the page.

    Attributes:
        label: what it is.
        values: its text by network.
        changes: by network, the difference to the first one and whether that is for the better; None where unknown.
        note: a few words below.
    """

    label: str
    values: Mapping[str, str]
    changes: Mapping[str, tuple[str, bool | None]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """What a renderer answers with: safe HTML below the verdicts, and key figures."""

    html: str
    keys: tuple[Key, ...] = ()


def share_key(label: str, shares: Mapping[str, float], note: str = "") -> Key:
    """A key figure for shares in [0, 1] of which more is better, with the change from the first network on."""
    first = next(iter(shares.values()), 0.0)
    changes = {
        name: (points(share - first), None if points(share - first) == points(0) else share > first)
        for name, share in list(shares.items())[1:]
    }
    return Key(label, {name: percent(share) for name, share in shares.items()}, changes, note)


def draw(findings: Mapping[str, Finding]) -> Section:
    """Draw the findings of one kind, by network, with that kind's renderer or else as tables."""
    kind = next(iter(findings.values())).kind
    section: Section = renderer.get(kind if kind in renderer.names() else "table")(findings)
    return section
