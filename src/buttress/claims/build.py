"""Objects from the short forms of a recipe, read as on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from buttress.config.reading import read
from buttress.config.roles import role_of
from buttress.config.spec import built

T = TypeVar("T")


def build(kind: Callable[..., T], tree: Any) -> T:
    """An object of ``kind`` from plain data, its types checked.

    Args:
        kind: a dataclass, or the base class of a role, which may be abstract: members are made of subclasses.
        tree: its settings; a member of a role as its name, or as a mapping with ``name`` and its options.

    Raises:
        UserError: in one line, for what does not fit.
    """
    role = role_of(kind)
    thing: T = built(read(kind, tree, (kind.__name__.lower() if role is None else role.role,)))
    return thing
