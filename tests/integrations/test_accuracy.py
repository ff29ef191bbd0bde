"""Accuracies in another tool's training: those that validation has, whatever the data come as."""

import pytest
import torch

from buttress.attacks.gradient.pgd import PGD
from buttress.data.sets.moons import moons
from buttress.errors import UserError
from buttress.integrations.accuracy import Accuracies
from buttress.threat import Threat
from buttress.training.validation import validate

ATTACK = PGD(threat=Threat(eps=0.2, box=None), steps=3)


@pytest.fixture(scope="module")
def points():
    return moons(samples=60, val=20, test=4)


def test_accuracies_are_those_of_validation(points, nets):
    model = nets.seeded(lambda: torch.nn.Linear(2, 2), 0)
    expected = validate(model, points.val, ATTACK, 5, torch.device("cpu"))
    x, y, _ = points.val.take(torch.arange(20))
    for data in (points, points.val, [(x[:7], y[:7]), (x[7:], y[7:])]):
        found = Accuracies(data=data, attack=ATTACK, seed=5).measure(model)
        assert found == pytest.approx({"clean_accuracy": expected.clean, "robust_accuracy": expected.robust})
    first = Accuracies(data=points, attack=ATTACK, seed=5, limit=8).measure(model)
    expected = Accuracies(data=[(x[:8], y[:8])], attack=ATTACK, seed=5).measure(model)
    assert first == expected


def test_they_are_measured_in_inference_mode_and_leave_the_mode_of_the_network(points):
    model = torch.nn.Linear(2, 2).train()
    with torch.inference_mode():
        found = Accuracies(data=points, attack=ATTACK, limit=6).measure(model)
    assert model.training
    assert found["robust_accuracy"] <= found["clean_accuracy"]


def test_no_inputs_and_no_limit_are_told():
    with pytest.raises(UserError, match="robust accuracy needs inputs; the data gave none"):
        Accuracies(data=[]).measure(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="limit must be a whole number of 1 or more; got 0"):
        Accuracies(data=[], limit=0)
