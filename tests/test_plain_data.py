"""Plain data are read as the libraries read them, and what has two meanings or no end is refused in one line."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from buttress.plain_data import read_json, read_yaml

TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=4), part, max_size=3),
    max_leaves=8,
)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [{','.join([f'*{before}'] * 9)}]\n" for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = {
    "a: 1\na: 2": "'a' is there twice",
    "{b: {a: 1, a: 2}}": "'a' is there twice",
    "a: 1:30": "1:30 means another number",
    "a: 010": "010 means another number",
    "a: 1:30.5": "1:30.5 means another number",
    "? [a]\n: 1": "a key must be a name",
    "&a [*a]": "an alias in it holds itself",
    "a: &a {b: [*a]}": "an alias in it holds itself",
    "a: !!python/object/apply:os.getcwd []": "could not determine a constructor",
    "a: 1\n---\nb: 2": "expected a single document",
    "[" * 3000: "nested too deeply",
    "a: [": "while parsing",
    BOMB: "its aliases spread out",
    "x" * 3_000_000: "characters, of at most",
}


@given(TREES)
def test_what_was_written_is_read(tree):
    assert read_yaml(yaml.safe_dump(tree)) == tree
    assert read_json(json.dumps(tree)) == tree


@pytest.mark.parametrize("text", REFUSED, ids=list(range(len(REFUSED))))
def test_what_is_ambiguous_or_endless_is_refused(text):
    with pytest.raises(ValueError, match=REFUSED[text]) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_mapping_laid_below_another_and_an_alias_are_no_repetition():
    assert read_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}\ne: [*a, *a]")["d"] == {"b": 3, "c": 2}
    assert read_yaml("a: '1:30'\nb: 0\nc: 0.5\nd: -0\ne: 0x10") == {"a": "1:30", "b": 0, "c": 0.5, "d": 0, "e": 16}


def test_json_that_is_nested_without_end_or_none_is_a_value_error():
    for text in ("[" * 100_000, "", "{", "nan"):
        with pytest.raises(ValueError, match=r"\S"):
            read_json(text)
