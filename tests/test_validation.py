"""Checks of settings; and that every whole number among the options of the registered methods is checked."""

import inspect
import math
import types
import typing
from dataclasses import is_dataclass

import pytest

from buttress import registry
from buttress.errors import UserError
from buttress.validation import integer, not_negative, number, one_of, positive, share, switch, whole

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
    ("defence", "ladder", "decoder_epochs"),
    ("defence", "ladder", "svm_epochs"),
    ("defence", "snode-ncg", "halvings"),
    *(("audit", "adaptive", name) for name in ("targets", "jitters", "queries", "decisions", "corners")),
    ("audit", "boundary", "points"),
    *(("audit", "latent-boundary", name) for name in ("decoder_epochs", "svm_epochs", "points")),
    ("audit", "layers", "patching_inputs"),
    ("audit", "layers", "tolerance_inputs"),
    ("audit", "lipschitz", "exact"),
    ("audit", "lipschitz", "tolerance_inputs"),
    ("audit", "saliency", "count"),
    ("model", "snode", "background"),
}


def whole_options():
    """(role, member, option) of every option that is a whole number, or one or none."""
    for role in ROLES:
        members = getattr(registry, role)
        for name in members.names():
            member = members.get(name)
            annotated = member if is_dataclass(member) or not inspect.isclass(member) else member.__init__
            hints = typing.get_type_hints(annotated)
            for option in inspect.signature(member).parameters:
                kind = hints.get(option)
                union = typing.get_origin(kind) in (types.UnionType, typing.Union)
                if kind is int or (union and set(typing.get_args(kind)) == {int, type(None)}):
                    yield role, name, option


@pytest.mark.parametrize("role", ROLES)
def test_every_whole_number_of_a_method_is_checked(role):
    options = [(name, option) for found, name, option in whole_options() if found == role]
    assert options
    for name, option in options:
        zero = () if (role, name, option) in MAY_BE_ZERO else (0,)
        for value in (*zero, -1, True, 1.5, "x"):
            with pytest.raises(UserError) as error:
                getattr(registry, role).get(name)(**{option: value})
            message = str(error.value)
            assert option in message, (name, message)
            assert repr(value) in message, (name, message)


def test_options_that_may_be_zero_exist():
    assert set(whole_options()) >= MAY_BE_ZERO


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
        (lambda: switch("detach", 1), "detach must be True or False; got 1"),
        (lambda: one_of("mode", "evil", ("eval", "train")), "mode must be one of eval, train; got 'evil'"),
    ],
)
def test_messages(check, message):
    with pytest.raises(UserError) as error:
        check()
    assert str(error.value) == message
