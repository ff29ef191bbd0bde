"""The one place that calls jsonargparse: a single value, read under its type.

Only that it succeeds or raises is relied on, never the text of its messages; `tests/config/test_typed_parser.py` holds
the behaviour that is.
"""

from __future__ import annotations

import functools
from typing import Any


class RefusedError(Exception):
    """The value is not of the type."""


@functools.cache
def _parser(kind: Any) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    return parser


def parsed_text(kind: Any, text: str) -> Any:
    """A typed word as a value of ``kind``.

    Raises:
        RefusedError: when it is none; ``1:30`` is no number, though YAML takes it for 90.
    """
    if kind in (int, float) and ":" in text:
        raise RefusedError
    return _value(kind, lambda parser: parser.parse_args([f"--value={text}"]))


def parsed_data(kind: Any, data: Any) -> Any:
    """Plain data, of a YAML file, as a value of ``kind``.

    Raises:
        RefusedError: when they are none.
    """
    return _value(kind, lambda parser: parser.parse_object({"value": data}))


def _value(kind: Any, parse: Any) -> Any:
    import jsonargparse

    try:
        parser = _parser(kind)
        return parser.instantiate(parse(parser)).value
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise RefusedError from error
