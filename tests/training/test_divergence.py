"""Trainings that numbers cannot hold say which setting is to blame."""

import math

import pytest
import torch

from buttress import registry
from buttress.attacks.gradient.fgsm import FGSM
from buttress.data.sets.moons import moons
from buttress.defences import AWP, TRADES, AdversarialTraining, LayerRegularised, Standard
from buttress.errors import UserError
from buttress.models import create
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training.divergence import USUAL_REMEDY, overflows, remedy

BASE = AdversarialTraining(FGSM(threat=Threat(eps=0.1, box=None)))
SMALLER = "gamma (1e+38) is too large: give a smaller one"


def train(defence, **settings):
    data = moons(samples=40, test=8)
    model = create("mlp", hidden=(4,), seed=0)
    return fit(model, data, defence, **{"epochs": 2, "batch_size": 20, "validate_with": "none", "seed": 0, **settings})


@pytest.mark.parametrize("name", registry.defence.names())
def test_no_setting_is_large_by_default(name):
    assert remedy(registry.defence.get(name)()) == USUAL_REMEDY


def test_large_settings_are_named_wherever_they_are():
    inside = LayerRegularised(AdversarialTraining(), ["act1", "act2"], gamma=[1e38, 0.3])
    assert remedy(inside) == remedy(AWP(inside)) == SMALLER
    assert remedy(TRADES(beta=1e4)) == "beta (10000) is too large: give a smaller one"


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("gamma", [1e25, 1e38])
def test_a_gamma_that_overflows_is_named(gamma, optimiser):
    """With Adam every step would be 0, for the gradient's square is infinite; with SGD the next loss is NaN."""
    with pytest.raises(UserError) as told:
        train(LayerRegularised(BASE, ["act1"], gamma), optimiser=Optimiser(name=optimiser, lr=0.01))
    assert f"training diverged; gamma ({gamma:g}) is too large: give a smaller one" in str(told.value)
    assert "\n" not in str(told.value)


def test_without_a_large_setting_it_is_the_learning_rate():
    with pytest.raises(UserError, match=f"training diverged; {USUAL_REMEDY}"):
        train(Standard(), optimiser=Optimiser(name="sgd", lr=1e30))


def test_a_gradient_overflows_where_its_square_does():
    assert overflows(1e7, [torch.ones(2), torch.tensor([1e20])])
    assert not overflows(1e7, [torch.tensor([1e18])])
    assert not overflows(1e7, [torch.tensor([1e20], dtype=torch.float64)])
    assert overflows(-1e7, [torch.tensor([math.nan])])
    assert not overflows(1.0, [torch.tensor([1e20])])  # not looked at
