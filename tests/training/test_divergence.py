"""Trainings that numbers cannot hold say which setting is to blame."""

import math

import pytest
import torch

from buttress import registry
from buttress.attacks.gradient.fgsm import FGSM
from buttress.data.arrays import from_arrays
from buttress.data.sets.moons import moons
from buttress.defences import AWP, TRADES, AdversarialTraining, LayerRegularised, Standard
from buttress.errors import UserError
from buttress.models import create
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training.config import TrainingConfig
from buttress.training.divergence import overflows, remedy

BASE = AdversarialTraining(FGSM(threat=Threat(eps=0.1, box=None)))
CONFIG = TrainingConfig(optimiser=Optimiser(lr=0.1))
SMALLER = "gamma (1e+38) is too large: give a smaller one"


def train(defence, model=None, data=None, **settings):
    data = data or moons(samples=40, test=8)
    model = model or create("mlp", hidden=(4,), seed=0)
    return fit(model, data, defence, **{"epochs": 2, "batch_size": 20, "validate_with": "none", "seed": 0, **settings})


@pytest.mark.parametrize("name", registry.defence.names())
def test_no_setting_is_large_by_default(name):
    assert remedy(registry.defence.get(name)(), CONFIG).startswith("lower the learning rate")


def test_large_settings_are_named_wherever_they_are():
    inside = LayerRegularised(AdversarialTraining(), ["act1", "act2"], gamma=[1e38, 0.3])
    assert remedy(inside, CONFIG) == remedy(AWP(inside), CONFIG) == SMALLER
    assert remedy(TRADES(beta=1e4), CONFIG) == "beta (10000) is too large: give a smaller one"


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("gamma", [1e25, 1e38])
def test_a_gamma_that_overflows_is_named(gamma, optimiser):
    """With Adam every step would be 0, for the gradient's square is infinite; with SGD the next loss is NaN."""
    with pytest.raises(UserError) as told:
        train(LayerRegularised(BASE, ["act1"], gamma), optimiser=Optimiser(name=optimiser, lr=0.01))
    assert f"training diverged; gamma ({gamma:g}) is too large: give a smaller one" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("clip", "smaller"), [(None, "1"), (5.0, "0.5")])
def test_without_a_large_setting_it_is_the_step_with_the_numbers_to_type(clip, smaller):
    told = remedy(Standard(), TrainingConfig(optimiser=Optimiser(lr=0.1), clip=clip), torch.ones(2, 3))
    assert told == f"lower the learning rate (--optimiser.lr 0.01, now 0.1) or clip the gradient (--clip {smaller})"


def test_a_learning_rate_that_is_too_large_is_told():
    with pytest.raises(UserError, match=r"training diverged; lower the learning rate \(--optimiser\.lr 1e\+29, now"):
        train(Standard(), optimiser=Optimiser(name="sgd", lr=1e30))


def test_before_the_first_update_it_is_not_the_learning_rate():
    class Logarithm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x) - (torch.log(0 * x) if self.training else 0)

    told = r"the loss is \S+ at step 0 .*: training diverged; no weight is changed yet: look at the initial weights"
    with pytest.raises(UserError, match=told):
        train(Standard(), model=Logarithm())


def test_inputs_as_they_come_from_a_table_are_told():
    x, y = 1e30 * torch.randn(60, 2).numpy(), (torch.arange(60) % 2).numpy()
    data = from_arrays("table", (x, y), (x[:8], y[:8]), classes=("a", "b"), box=None, provenance="made here")
    with pytest.raises(UserError, match=r"the inputs reach \S+e\+30: scale them to \[0, 1\], or standardise them"):
        train(Standard(), data=data, optimiser=Optimiser(name="sgd", lr=0.1))


def test_a_gradient_overflows_where_its_square_does():
    assert overflows(1e7, [torch.ones(2), torch.tensor([1e20])])
    assert not overflows(1e7, [torch.tensor([1e18])])
    assert not overflows(1e7, [torch.tensor([1e20], dtype=torch.float64)])
    assert overflows(-1e7, [torch.tensor([math.nan])])
    assert not overflows(1.0, [torch.tensor([1e20])])  # not looked at
