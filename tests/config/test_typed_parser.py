"""What is relied on of jsonargparse: this fails when another version reads values otherwise."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import inf, isnan
from pathlib import Path
from typing import Any, Literal

import pytest

from buttress.config.typed_parser import RefusedError, parsed_data, parsed_text


def test_the_version_is_the_one_that_is_pinned():
    assert version("jsonargparse").startswith("4.53.")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "3", 3),
        (float, "1e-2", 0.01),
        (float, "3", 3.0),
        (float, ".inf", inf),
        (bool, "yes", True),
        (bool, "false", False),
        (str, "3", "3"),
        (str, "null", "null"),
        (str, "[a", "[a"),
        (str, "{a: b}", "{a: b}"),
        (Path, "a/b", Path("a/b")),
        (Literal["a", "none"], "none", "none"),
        (Literal[1, 2], "2", 2),
        (Any, "4", 4),
        (Any, "1e-3", 0.001),
        (Any, "true", True),
        (Any, "word", "word"),
    ],
)
def test_words_become_values_of_their_type(kind, text, value):
    result = parsed_text(kind, text)
    assert (result, type(result)) == (value, type(value))


def test_no_number_is_a_number():
    assert isnan(parsed_text(float, ".nan"))


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (float, 3, 3.0),
        (tuple[float, float], [0, 1], (0.0, 1.0)),
        (dict[str, Any], {"a": 1, "b": [2]}, {"a": 1, "b": [2]}),
        (Mapping[str, Sequence[int | str]], {"a": [1, "x"]}, {"a": [1, "x"]}),
    ],
)
def test_data_become_values_of_their_type(kind, data, value):
    result = parsed_data(kind, data)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "text"),
    [(int, "3.5"), (int, "x"), (float, "x"), (bool, "x"), (Literal["a"], "b"), (dict, "3"), (tuple[float, float], "3")],
)
def test_words_of_another_type_are_refused(kind, text):
    with pytest.raises(RefusedError):
        parsed_text(kind, text)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (int, 3.0),
        (int, True),
        (float, True),
        (bool, 1),
        (str, 3),
        (tuple[float, float], [1]),
        (dict[str, int], {"a": "x"}),
    ],
)
def test_data_of_another_type_are_refused(kind, data):
    with pytest.raises(RefusedError):
        parsed_data(kind, data)
