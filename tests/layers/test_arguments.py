"""Every public function of buttress.layers, and every method of its profile, refuses arguments of the wrong kind."""

import contextlib
import inspect
import math

import pytest
import torch
from torch import nn

from buttress import layers
from buttress.attacks import FGSM
from buttress.errors import UserError
from buttress.layers import LayerProfile, sustainability
from buttress.threat import Threat

FUNCTIONS = {name for name in layers.__all__ if inspect.isfunction(getattr(layers, name))}
# `of` makes what others have computed into a profile.
METHODS = {
    name for name in vars(LayerProfile) if callable(getattr(LayerProfile, name)) and name[0] != "_" and name != "of"
}
WRONG = {"None": None, "a string": "no such thing", "a dict": {}, "negative": -1, "nan": math.nan, "a list": [3]}
# What is wrong elsewhere and right here.
RIGHT = {
    "seed": ["negative"],
    "replace": ["None"],
    "edges": ["None", "a dict"],
    "places": ["None", "a dict"],
    "code": ["None"],
    "layers of capture": ["a string"],  # it cannot know before a pass which layers there are
    "eta": ["negative"],
    **{f"perturbation of {name}": ["None"] for name in METHODS},
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def right_arguments():
    x, attack = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)), FGSM(threat=Threat(eps=0.1))
    data = [(x, torch.tensor([0, 1, 0]))]
    return {"model": network(), "data": data, "x": x, "perturbation": attack, "perturbations": attack}


def is_right(name, parameter, what):
    return what in RIGHT.get(f"{parameter} of {name}", RIGHT.get(parameter, ()))


def cases(owner, names):
    return [
        pytest.param(name, parameter, wrong, id=f"{name}-{parameter}-{what}")
        for name in sorted(names)
        for parameter in inspect.signature(getattr(owner, name)).parameters
        for what, wrong in WRONG.items()
        if parameter != "self" and not is_right(name, parameter, what)
    ]


def run(function, arguments):
    result = function(**arguments)
    with result if isinstance(result, contextlib.AbstractContextManager) else contextlib.nullcontext():
        pass


def refused(function, arguments):
    with pytest.raises(UserError) as refusal:
        run(function, arguments)
    assert "\n" not in str(refusal.value)


def test_the_functions_are_found():
    assert {"capture", "layer_names", "crossed_by_every_path", "patching", "sustainability", "tolerance"} <= set(
        FUNCTIONS
    )
    assert {"mvl", "gain", "quantile"} <= set(METHODS)


@pytest.mark.parametrize(("name", "parameter", "wrong"), cases(layers, FUNCTIONS))
def test_functions_refuse_what_is_of_the_wrong_kind(name, parameter, wrong):
    function = getattr(layers, name)
    wanted = inspect.signature(function).parameters
    refused(function, {key: value for key, value in right_arguments().items() if key in wanted} | {parameter: wrong})


@pytest.fixture(scope="module")
def profile():
    given = right_arguments()
    return sustainability(given["model"], given["data"], given["perturbations"])


@pytest.mark.parametrize(("name", "parameter", "wrong"), cases(LayerProfile, METHODS))
def test_methods_of_a_profile_refuse_what_is_of_the_wrong_kind(name, parameter, wrong, profile):
    refused(getattr(profile, name), {parameter: wrong})
