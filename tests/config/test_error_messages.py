"""The parser's own words, as they come from jsonargparse, in one line."""

from typing import Literal

import jsonargparse
import pytest

from buttress.attacks import Attack
from buttress.config.error_messages import error_line, user_error_behind
from buttress.errors import UserError
from buttress.threat import Threat


def job(
    count: int = 1,
    share: float | None = None,
    flag: bool = False,
    kind: Literal["one", "two"] = "one",
    box: tuple[float, float] | None = None,
    names: list[str] | None = None,
    table: dict[str, int] | None = None,
    attack: Attack | None = None,
    threat: Threat | None = None,
):
    """Options of every type."""


KNOWN = ["count", "share", "flag", "kind", "box", "names", "table", "attack", "threat.norm", "threat.eps", "threat.box"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("--count=x", "--count takes a whole number; got 'x'"),
        ("--share=x", "--share takes a number; got 'x'"),
        ("--flag=x", "--flag takes true or false; got 'x'"),
        ("--kind=three", "--kind takes one of one, two; got 'three'"),
        ("--box=3", "--box takes values such as 0,1; got '3'"),
        ("--names=x", "--names takes values such as a,b; got 'x'"),
        ("--table=3", "--table takes a mapping such as '{key: value}'; got '3'"),
        ("--threat.eps=x", "--threat.eps takes a number; got 'x'"),
        ("--threat=3", "--threat takes its options one by one, as in --threat.norm"),
        ("--count", "--count needs a value"),
        ("--cuont=3", "there is no option 'cuont'; did you mean 'count'?"),
        ("--threat.epz=3", "there is no option 'threat.epz'; did you mean 'threat.eps'?"),
        ("--attack=json.JSONDecoder", "--attack takes an attack; JSONDecoder is none"),
        ("--attack.steps=3", "--attack: say first which attack it is, as in --attack NAME, then its options"),
    ],
)
def test_every_kind_of_mistake(word, line):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(job)
    with pytest.raises(jsonargparse.ArgumentError) as caught:
        parser.parse_args([word])
    assert error_line(caught.value, KNOWN).startswith(line)


def test_options_of_a_class_are_named_by_its_path():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(job)
    for word, line in (
        ("--attack.stepz=3", "--attack: PGD has no option 'stepz'; did you mean 'steps'?"),
        ("--attack.step_size=x", "--attack.step-size takes a number; got 'x'"),
        ("--attack.threat.epz=3", "--attack.threat: Threat has no option 'epz'; did you mean 'eps'?"),
    ):
        with pytest.raises(jsonargparse.ArgumentError) as caught:
            parser.parse_args(["--attack=buttress.attacks.gradient.pgd.PGD", word])
        assert error_line(caught.value, KNOWN).startswith(line), error_line(caught.value, KNOWN)


def test_our_own_line_is_found_among_the_causes():
    error = ValueError("many\nlines")
    error.__cause__ = TypeError("between")
    error.__cause__.__context__ = UserError("steps must be 1 or more; got 0")
    assert error_line(error) == "steps must be 1 or more; got 0"
    assert user_error_behind(ValueError("x")) is None


def test_words_that_are_not_known_are_told_in_one_line():
    assert error_line(ValueError('Parser key "a.b_c":\n  Something\n    else entirely')) == "--a.b-c: Something"
    assert error_line(ValueError("")) == "cannot be read"
