"""Objects from the short forms of a recipe, by the same typed path as the command line."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

from buttress.config.short_forms import spelt_out
from buttress.errors import UserError

T = TypeVar("T")


def build(kind: Callable[..., T], tree: Any, role: str = "") -> T:
    """An object of ``kind`` from plain data, its types checked.

    Args:
        kind: a dataclass, or the base class of a role, which may be abstract: members are made of subclasses.
        tree: its settings; a member of a role as its name, or as a mapping with ``name`` and its options.
        role: the option whose value this is, such as "defence" or "attack"; it says whose names are meant.

    Raises:
        UserError: in one line, for what does not fit.
    """
    import jsonargparse

    try:
        made: T = _parsed(kind, json.dumps(spelt_out(role, tree)))()
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise UserError(f"{role or kind.__name__}: {' '.join(str(error).split())}") from None
    return made


@functools.lru_cache(maxsize=512)
def _parsed(kind: Callable[..., Any], settings: str) -> Callable[[], Any]:
    """A maker of equal objects: rows of a table share most of their settings, and parsing them takes long."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    config = parser.parse_object({"it": json.loads(settings)})
    return lambda: parser.instantiate(config).it
