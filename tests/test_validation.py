"""Checks of settings; and that every number and every name among the options of the registered methods is checked."""

import math

import pytest

from buttress import registry
from buttress.config.annotations import accepts_none, alternatives, item_of, parameters
from buttress.errors import UserError
from buttress.validation import (
    integer,
    name_list,
    not_negative,
    number,
    one_name,
    one_of,
    positive,
    share,
    switch,
    whole,
)

ROLES = ("attack", "defence", "model", "audit", "monitor")

# Options that may be 0: as published (autoattack), none of them, or only the start.
MAY_BE_ZERO = {
    *(("attack", name, "targets") for name in ("apgd", "autoattack", "fab")),
    ("attack", "autoattack", "restarts"),
    ("attack", "autoattack", "draws"),
    ("attack", "friendly-pgd", "tau"),
    ("attack", "latent", "steps"),
    ("attack", "semantic", "steps"),
    ("defence", "adv-kip", "steps"),
    *(("defence", name, "pretrain_epochs") for name in ("csa", "cse", "ladder")),
    ("defence", "friendly", "tau"),
    *(("defence", "gat", name) for name in ("steps", "epochs", "judge_epochs")),
    *(("defence", name, "steps") for name in ("ibp", "crown-ibp")),
    ("defence", "ladder", "decoder_epochs"),
    ("defence", "ladder", "svm_epochs"),
    ("defence", "snode-ncg", "halvings"),
    *(("audit", "adaptive", name) for name in ("targets", "jitters", "queries", "decisions", "corners")),
    ("audit", "boundary", "points"),
    *(("audit", "latent-boundary", name) for name in ("decoder_epochs", "svm_epochs", "points")),
    ("audit", "inputs", "pictures"),
    ("audit", "layers", "patching_inputs"),
    ("audit", "layers", "tolerance_inputs"),
    ("audit", "lipschitz", "exact"),
    ("audit", "lipschitz", "tolerance_inputs"),
    ("audit", "privacy", "batches"),
    ("audit", "saliency", "count"),
    ("audit", "smoothing", "steps"),
    ("model", "snode", "background"),
}


# Options whose sign means something, that have no upper end, and that are names of no layer or file.
MAY_BE_NEGATIVE = {
    ("attack", "jsma", "theta"),
    ("attack", "universal", "ceiling"),
    ("defence", "snode-ncg", "low"),
    ("defence", "snode-ncg", "high"),
    *(("model", name, "shift") for name in ("cifs-cnn", "cifs-resnet18", "cifs-wrn")),
    ("model", "self-gradient", "eta"),
    ("model", "zerosnet", "discretisation"),
    ("model", "zerosnet", "k"),
}
MAY_BE_INFINITE = {("attack", "universal", "ceiling"), ("audit", "robustness", "eps")}


def options(role):
    """(member's name, member, option, the types that it allows, whether it may be left out) of every option."""
    members = getattr(registry, role)
    for name in members.names():
        for option, parameter in parameters(members.get(name)).items():
            kinds = alternatives(parameter.annotation)
            yield name, members.get(name), option, kinds, accepts_none(parameter.annotation)


def items(kinds):
    """The types of the items of the lists among these."""
    return [item for kind in kinds if kind is not str and (one := item_of(kind)) for item in alternatives(one)]


def whole_options():
    """(role, member, option) of every option that is a whole number, or one or none."""
    return [(role, name, option) for role in ROLES for name, _, option, kinds, _ in options(role) if kinds == [int]]


def check_refused(member, option, values):
    """That each value is refused in one line that names the option and the value."""
    for value in values:
        with pytest.raises(UserError) as error:
            member(**{option: value})
        message = str(error.value)
        came = value[0] if isinstance(value, list) else value
        assert option in message, (member, message)
        assert repr(came) in message or f"got {type(came).__name__}" in message, (member, message)
        assert "\n" not in message


@pytest.mark.parametrize("role", ROLES)
def test_every_whole_number_of_a_method_is_checked(role):
    found = [(name, member, option) for name, member, option, kinds, _ in options(role) if kinds == [int]]
    assert found
    for name, member, option in found:
        zero = () if (role, name, option) in MAY_BE_ZERO else (0,)
        check_refused(member, option, (*zero, -1, True, 1.0, 1.5, math.nan, "x"))


@pytest.mark.parametrize("role", ROLES)
def test_every_number_of_a_method_is_checked(role):
    """Alone and in lists: no NaN and no text, and what is negative or infinite only where that means something."""
    checked = 0
    for name, member, option, kinds, _ in options(role):
        wrong = [math.nan, -math.inf]
        wrong += [] if (role, name, option) in MAY_BE_INFINITE else [math.inf]
        wrong += [] if (role, name, option) in MAY_BE_NEGATIVE else [-1.0]
        single, several = float in kinds, {float, int} & set(items(kinds))
        if single:
            check_refused(member, option, wrong + [True] * (bool not in kinds) + ["x"] * (str not in kinds))
        if several and str not in items(kinds):
            check_refused(member, option, [[value] for value in (*wrong, True, "x")])
        checked += single or bool(several)
    assert checked


@pytest.mark.parametrize("role", ROLES)
def test_every_name_among_the_options_of_a_method_is_checked(role):
    """No empty name, which would be taken for none, and nothing that is no text."""
    for _, member, option, kinds, may_be_none in options(role):
        if str in kinds and not {int, float} & set(kinds):
            check_refused(member, option, ["", " ", 3] + [None] * (not may_be_none))
        if str in items(kinds) and int not in items(kinds):
            check_refused(member, option, [[""], [3], [None]])


def test_options_that_are_left_out_of_a_check_exist():
    every = {(role, name, option) for role in ROLES for name, _, option, _, _ in options(role)}
    assert set(whole_options()) >= MAY_BE_ZERO
    assert every >= MAY_BE_NEGATIVE | MAY_BE_INFINITE


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None])
def test_whole_refuses(value):
    with pytest.raises(UserError, match=rf"^steps must be a whole number of 1 or more; got {value!r}$"):
        whole("steps", value)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, {}])
def test_integer_refuses(value):
    with pytest.raises(UserError, match=rf"^seed must be a whole number; got {value!r}$"):
        integer("seed", value)


def test_values_come_back():
    assert integer("seed", -3) == -3
    assert whole("steps", 3) == 3
    assert whole("steps", 0, 0) == 0
    assert isinstance(number("lr", 1), float)
    assert number("low", -2.5) == -2.5
    assert number("p", 1, "(0, 1]") == share("p", 1) == 1.0
    assert positive("lr", 1e-300) == 1e-300
    assert not_negative("lr", 0) == share("p", 0) == 0.0
    assert number("clip", math.inf, "(0, inf]") == math.inf
    assert switch("detach", False) is False
    assert one_of("mode", "eval", ("eval", "train")) == "eval"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: number("low", math.inf), "low must be a finite number; got inf"),
        (lambda: number("low", True), "low must be a finite number; got True"),
        (lambda: number("p", 0, "(0, 1]"), "p must be a number in (0, 1]; got 0"),
        (lambda: number("p", 1.0, "[0, 1)"), "p must be a number in [0, 1); got 1.0"),
        (lambda: number("most", 0.5, "[1, inf)"), "most must be a finite number of 1 or more; got 0.5"),
        (lambda: number("clip", 0.0, "(0, inf]"), "clip must be a number above 0; got 0.0"),
        (lambda: positive("lr", math.nan), "lr must be a finite number above 0; got nan"),
        (lambda: positive("lr", math.inf), "lr must be a finite number above 0; got inf"),
        (lambda: not_negative("beta", -0.5), "beta must be a finite number of 0 or more; got -0.5"),
        (lambda: not_negative("beta", "1"), "beta must be a finite number of 0 or more; got '1'"),
        (lambda: share("rho", 1.5), "rho must be a number in [0, 1]; got 1.5"),
        (lambda: whole("severity", 6, 1, 5), "severity must be a whole number from 1 to 5; got 6"),
        (lambda: one_name("layer", " "), "layer must be a name; got ' '"),
        (
            lambda: name_list("layers", ["a", ""]),
            "layers must be a name or a list of names; got an empty name: ['a', '']",
        ),
        (lambda: name_list("layers", ["a", "b", "a"]), "layers must be names, each once; got 'a' 2 times"),
        (lambda: name_list("layers", [3]), "layers must be a name or a list of names; got [3]"),
        (lambda: switch("detach", 1), "detach must be True or False; got 1"),
        (lambda: one_of("mode", "evil", ("eval", "train")), "mode must be one of eval, train; got 'evil'"),
    ],
)
def test_messages(check, message):
    with pytest.raises(UserError) as error:
        check()
    assert str(error.value) == message
