"""Words and plain data under annotations."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from torch import nn

from buttress import registry
from buttress.attacks import PGD, Attack, Perturbation
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits import Audit
from buttress.config.option_errors import MissingOptionsError, UnknownOptionError, UnnamedMemberError, WrongValueError
from buttress.config.reading import fraction, is_own, read
from buttress.config.roles import averages
from buttress.config.spec import built
from buttress.defences import Defence
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import SWA, Average


def build(annotation, value):
    return built(read(annotation, value, ("option",)))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8/255", repr(8 / 255)),
        (" 1 / 4 ", "0.25"),
        ("1.5/3", "0.5"),
        ("0.1", "0.1"),
        ("a/b", "a/b"),
        ("runs/1", "runs/1"),
    ],
)
def test_fractions_become_numbers_and_nothing_else_does(text, number):
    assert fraction(text) == number


def test_division_by_zero_is_refused():
    with pytest.raises(UserError, match="8/0 divides by zero"):
        fraction("8/0")


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (float, "8/255", 8 / 255),
        (float | None, "none", None),
        (str | None, "null", None),
        (str, "none", "none"),
        (Literal["none", "all"], "none", "none"),
        (float | Sequence[float], "0.5", 0.5),
        (float | Sequence[float], "0.5,1/4", [0.5, 0.25]),
        (int | str | Sequence[int | str], "0", 0),
        (int | str | Sequence[int | str], "0,cat", [0, "cat"]),
        (int | Sequence[str | nn.Module], "runs/a", ["runs/a"]),
        (str | Sequence[str], "activations", "activations"),
        (Sequence[str], "act1", ["act1"]),
        (tuple[float, ...], "1,2", (1.0, 2.0)),
        (tuple[float, float] | None, "-1,1", (-1.0, 1.0)),
        (tuple[float, float] | None, [0, "1/2"], (0.0, 0.5)),
        (Sequence[nn.Module | str], "runs/a,runs/b", ["runs/a", "runs/b"]),
        (dict[str, Any], "{a-b: 1/2, name: kept}", {"a_b": 0.5, "name": "kept"}),
        (str | Callable[[int], int], "margin", "margin"),
        (Any, "12,1/4", [12, 0.25]),
        (Any, "a,1", "a,1"),
        (Any, "none", None),
    ],
)
def test_values_follow_from_the_annotation(annotation, value, result):
    assert read(annotation, value, ("option",)) == result


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "x", "--option takes a whole number; got 'x'"),
        (float | None, "x", "--option takes a number; got 'x'"),
        (bool, "x", "--option takes true or false; got 'x'"),
        (Literal["one", "two"], "three", "--option takes one of one, two; got 'three'"),
        (tuple[float, float] | None, "3", "--option takes values such as 0,1; got '3'"),
        (list[str], 3, "--option takes values such as a,b; got 3"),
        (dict[str, int], "3", "--option takes a mapping such as '{key: value}'; got '3'"),
        (int | Sequence[float], "x", "--option takes a whole number or values such as a,b; got 'x'"),
        (Threat, "3", "--option takes its options one by one, as in --option.norm; got '3'"),
        (Attack | None, 3, "--option takes the name of an attack; got 3"),
    ],
)
def test_every_kind_of_wrong_value(annotation, value, message):
    with pytest.raises(WrongValueError) as caught:
        read(annotation, value, ("option",))
    assert str(caught.value) == message
    assert caught.value.path == ("option",)


def test_members_have_their_options_beside_their_name():
    tree = {"name": "at", "attack": {"name": "pgd", "step-size": "1/4", "threat": {"eps": "8/255", "box": None}}}
    defence = build(Defence, tree)
    assert type(defence) is registry.defence.get("at")
    assert defence.attack == PGD(step_size=0.25, threat=Threat(eps=8 / 255, box=None))
    assert build(Sequence[Perturbation], ["pgd", {"name": "gaussian", "std": "1/2"}])[1].std == 0.5
    assert build(Attack | None, "fgsm") == FGSM()


@pytest.mark.parametrize("name", registry.attack.names())
def test_a_member_that_is_named_starts_from_its_own_defaults(name):
    options = {"surrogate": "runs/a"} if name == "transfer" else {}
    assert build(Perturbation, {"name": name, **options}) == registry.attack.get(name)(**options)


def test_what_was_printed_is_read_again():
    path = "buttress.attacks.gradient.pgd.PGD"
    assert build(Attack, {"class_path": path, "init_args": {"steps": 3}}) == PGD(steps=3)
    assert build(Attack, {"class_path": "PGD"}) == PGD()
    assert build(Average, {"class_path": "SWA", "init_args": {"start": 0.25}}).start == 0.25
    with pytest.raises(UserError, match=r"there is no 'buttress\.attacks\.gradient\.pgd\.PDG'"):
        build(Attack, {"class_path": "buttress.attacks.gradient.pgd.PDG"})


def test_what_an_earlier_version_printed_is_read():
    """Classes by the modules in which they were, and a flag that threats had."""
    threat = {"norm": "l2", "eps": 0.5, "box": [0.0, 1.0], "explicit": False}
    tree = {"class_path": "buttress.attacks.pgd.PGD", "init_args": {"threat": threat, "steps": 3}}
    attack = build(Attack, tree)
    assert (attack.threat, attack.steps) == (Threat(norm="l2", eps=0.5), 3)
    with pytest.raises(UserError, match=r"there is no 'buttress\.attacks\.pgd\.PDG'"):
        build(Attack, {"class_path": "buttress.attacks.pgd.PDG"})


@pytest.mark.parametrize("name", ["swa", "SWA", "Swa"])
def test_averages_are_named_or_a_number(name):
    annotation = float | Average | None
    assert isinstance(build(annotation, name), SWA)
    assert build(annotation, {"name": name, "start": 0.25}).start == 0.25
    assert build(annotation, 0.9) == 0.9
    assert build(annotation, "1/2") == 0.5
    assert averages.names() == ["ema", "swa", "fawa"]
    with pytest.raises(UserError, match=r"no average 'swag' of the weights; did you mean 'swa'\?, or a number"):
        build(annotation, "swag")


def test_unknown_and_missing_options_name_the_member():
    with pytest.raises(UnknownOptionError, match="--option: PGD has no option 'stepz'; did you mean 'steps'") as caught:
        build(Attack, {"name": "pgd", "stepz": 3})
    assert (caught.value.name, caught.value.path, caught.value.member) == ("stepz", ("option",), "PGD")
    with pytest.raises(UnknownOptionError, match=r"PGD has no option 'threat\.epz'; did you mean 'threat\.eps'"):
        build(Attack, {"name": "pgd", "threat": {"epz": 3}})
    with pytest.raises(UnnamedMemberError, match="--option: say first which attack it is, as in --option NAME"):
        build(Attack, {"steps": 3})
    with pytest.raises(MissingOptionsError, match=r"needed and not given: --option\.file"):
        build(Audit, "imported")


USERS = """
from collections.abc import Callable

from buttress.defences.standard import Standard


class Thing:
    def __init__(self, size: int = 1):
        self.size = size


def measure():
    pass


class Mine(Standard):
    def __init__(self, how: Callable[[], None], part: Thing):
        super().__init__()
        self.how, self.part = how, part
"""


def test_things_of_the_users_are_found_at_any_depth_of_a_member(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(USERS)
    tree = {"name": f"{file}:Mine", "how": f"{file}:measure", "part": {"name": f"{file}:Thing", "size": 3}}
    defence = build(Defence, tree)
    assert defence.how is registry.import_thing(f"{file}:measure")
    assert defence.part.size == 3
    assert read(str, f"{file}:measure", ("data",)) == f"{file}:measure"


def test_annotations_that_cannot_be_read_are_the_users_mistake(tmp_path):
    file = tmp_path / "late.py"
    text = "from __future__ import annotations\nfrom buttress.defences.standard import Standard\n"
    file.write_text(f"{text}class Late(Standard):\n    def __init__(self, by: Attak = None):\n        self.by = by\n")
    with pytest.raises(UserError, match="the options of Late cannot be read: its annotations name 'Attak', which"):
        build(Defence, f"{file}:Late")


@pytest.mark.parametrize(
    ("text", "own"),
    [("a.b:C", True), ("dir/a.py:C", True), ("C", False), ("http://x:80", False), ("a b:c", False), ("a:", False)],
)
def test_the_form_of_a_users_own_thing(text, own):
    assert is_own(text) is own


def test_a_function_is_no_member():
    with pytest.raises(UserError, match="'json:loads' is a function: attacks are classes"):
        build(Attack, "json:loads")
