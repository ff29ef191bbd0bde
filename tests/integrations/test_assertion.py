"""An assertion on robust accuracy, against a network whose robust accuracy is known in closed form."""

import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from buttress import data
from buttress.attacks import FGSM, FMN
from buttress.errors import UserError
from buttress.integrations import assert_robust

ROOT = Path(__file__).parents[2]


class Halves(nn.Module):
    """Class 1 where the first feature is above 0.5: an input is robust as long as it is further away than eps."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        z = self.scale * (x[:, 0] - 0.5)
        return torch.stack([-z, z], 1)


def batches(count=100):
    """Inputs at evenly spaced distances up to 0.5 from the boundary, all classified correctly."""
    first = (torch.arange(count) + 0.5) / count
    x = torch.stack([first, torch.full((count,), 0.5)], 1)
    return [(x[:60], (first > 0.5).long()[:60]), (x[60:], (first > 0.5).long()[60:])]


@pytest.mark.parametrize(
    ("norm", "attacks"),
    [("linf", None), ("l2", None), ("l1", None), ("linf", [FMN(steps=20)]), ("l2", [FMN(steps=20)])],
)
def test_the_bound_is_held_against_the_closed_form(norm, attacks, assert_robust):
    """Of 100 inputs those nearer than 0.1 to the boundary fall: 20."""
    figures = assert_robust(Halves(), batches(), eps=0.1, at_least=0.8, norm=norm, attacks=attacks)
    assert [point["accuracy"] for point in figures["worst"]] == [1.0, 0.8]
    told = (
        r"robust accuracy is under 81\.0%: 100\.0% of 100 inputs are classified correctly; robust accuracy is 80\.0% "
    )
    with pytest.raises(AssertionError, match=told):
        assert_robust(Halves(), batches(), eps=0.1, at_least=0.81, norm=norm, attacks=attacks)


def test_the_network_comes_back_as_it_was_and_attacks_take_the_budget(nets):
    model = Halves().train()
    before = nets.state(model)
    figures = assert_robust(model, batches(), eps=0.0, at_least=1, attacks=[FGSM()])
    nets.assert_state(model, before)
    assert model.training
    assert [point["eps"] for point in figures["worst"]] == [0.0]


def test_of_a_data_set_the_test_split_counts():
    moons = data.load("moons", samples=60, test=24)
    with pytest.raises(AssertionError, match="of 24 inputs"):
        assert_robust(Halves(), moons, eps=10.0, at_least=0.5)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"at_least": 40}, "at_least is a share from 0 to 1, as in 0.4 for 40 %; got 40"),
        ({"eps": -1}, "eps must be a number of 0 or more; got -1"),
        ({"norm": "l3"}, "l3"),
    ],
)
def test_what_means_nothing_is_refused(settings, line):
    with pytest.raises(UserError, match=line):
        assert_robust(Halves(), batches(), **{"eps": 0.1, "at_least": 0.5, **settings})


def test_pytest_finds_the_fixture():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"buttress": "buttress.integrations.pytest_plugin"}
