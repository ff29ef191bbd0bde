"""JSON and YAML that people write and edit, read strictly: what has two meanings or no end is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

_MOST_TEXT = 2_000_000  # characters of YAML, which is read at about a million a second
_MOST_VALUES = 1_000_000  # that aliases may spread out to
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_DEEP = "it is nested too deeply"


def read_json(text: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """What a JSON text holds; as `json.loads`, whose only error this has, also for what is nested without end.

    Raises:
        ValueError: when it is no JSON.
    """
    try:
        return json.loads(text, object_hook=object_hook)
    except RecursionError:
        raise ValueError(_DEEP) from None


def read_yaml(text: str) -> Any:
    """What a YAML text holds, as `yaml.safe_load` reads it, but for what is hardly meant.

    Raises:
        ValueError: in one line, where it is no YAML or asks for a program's objects; and for a key that is there twice,
            numbers that YAML takes for others (``1:30`` for 90, ``010`` for 8), aliases that hold themselves or spread
            out without end, and what is very long.
    """
    if len(text) > _MOST_TEXT:
        raise ValueError(f"it has {len(text):,} characters, of at most {_MOST_TEXT:,}")
    try:
        tree = yaml.load(text, _Loader)
        _count(tree, {}, ())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError(_DEEP) from None
    return tree


class _Loader(yaml.SafeLoader):
    """YAML's own, without what is ambiguous."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As YAML's; a key counts once, where ``<<`` lays no other mapping below."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        """As YAML's, but for numbers in base 60 and 8."""
        self._refuse_other_base(node)
        return int(super().construct_yaml_int(node))

    def construct_yaml_float(self, node: Any) -> float:
        """Likewise."""
        self._refuse_other_base(node)
        return float(super().construct_yaml_float(node))

    @staticmethod
    def _refuse_other_base(node: Any) -> None:
        if ":" in node.value or _OCTAL.fullmatch(node.value):
            said = f"{node.value} means another number in YAML: write it in base 10, or put quotes around a text"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", getattr(_Loader, f"construct_yaml_{_kind}"))


def _count(tree: Any, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a tree has, its aliases written out.

    Raises:
        ValueError: for one that holds itself, and for too many.
    """
    if not isinstance(tree, dict | list):
        return 1
    if id(tree) in above:
        raise ValueError("an alias in it holds itself")
    if id(tree) not in known:
        parts = tree.values() if isinstance(tree, dict) else tree
        known[id(tree)] = 1 + sum(_count(part, known, (*above, id(tree))) for part in parts)
    if known[id(tree)] > _MOST_VALUES:
        raise ValueError(f"its aliases spread out to more than {_MOST_VALUES:,} values")
    return known[id(tree)]
