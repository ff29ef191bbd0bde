"""Claims on layer profiles: the checks against numbers made up by hand, and one real run against `sustainability`."""

import pytest
import torch

from buttress import Threat, attacks, data, fit, layers
from buttress.claims.profiles import run_profiles
from buttress.claims.recipe import Claim
from buttress.claims.work import Work
from buttress.claims.worker_pool import local_engine
from buttress.errors import UserError
from buttress.jobs.settings import Network, Reporter

SETUP = {
    "source": {"data": "moons", "data_args": {"samples": 64, "val": 16, "test": 40}},
    "architecture": {"model": "lsa-a", "model_args": {"width": 8}},
    "training": {"epochs": 2, "keep": "last", "schedule": {"name": "constant"}},
    "eps": 0.2,
    "perturbations": {"pgd": {"name": "pgd", "steps": 3}, "gaussian": {"name": "gaussian", "std": 0.2, "box": None}},
}
SETTINGS = {"setups": {"A": SETUP}, "measures": ["relative_error", "centred"], "inputs": 24}
CHECKS = [
    {"setup": "A", "above": ["pgd"], "over": ["gaussian"]},
    {"setup": "A", "peak": -1, "perturbation": "pgd"},
    {"setup": "A", "peak": 0, "perturbation": "gaussian"},
]
PUBLISHED = {"A": {"pgd": [0.5, 0.6, 0.9], "gaussian": [0.4, 0.3, 0.2]}}


def claim(checks=CHECKS, published=PUBLISHED):
    return Claim(source="", statement="", kind="profiles", checks=checks, published=published)


class Given:
    """Hands out profiles that were made up."""

    def __init__(self, *profiles):
        self.profiles = [{"profile": {"layers": ["a", "b", "c"], "relative_error": p, "centred": p}} for p in profiles]

    def run(self, jobs, title):
        assert [job["seed"] for job in jobs] == list(range(len(self.profiles)))
        return self.profiles


def test_checks_take_the_worst_layer_and_the_lead():
    one = {"pgd": [0.5, 0.6, 1.0], "gaussian": [0.4, 0.3, 0.2]}
    other = {"pgd": [0.6, 0.5, 0.8], "gaussian": [0.3, 0.3, 0.3]}
    result = run_profiles(claim(), SETTINGS, 2, Given(one, other))
    above, last, first = (check["under"]["relative_error"] for check in result["checks"])
    assert above["seeds"] == pytest.approx([0.1, 0.2])
    assert last["seeds"] == pytest.approx([0.4, 0.2])
    assert first["seeds"] == pytest.approx([0.1, 0.0])
    assert [check["published"] for check in result["checks"]] == pytest.approx([0.1, 0.3, 0.1])
    layer = result["profiles"]["A"]["displacement"]["centred"]["pgd"][2]
    assert layer["mean"] == pytest.approx(0.9)
    assert layer["seeds"] == [1.0, 0.8]


def test_what_was_not_published_is_none():
    made_up = {"pgd": [0.5, 0.6, 1.0], "gaussian": [0.4, 0.3, 0.2]}
    result = run_profiles(claim(published={"A": {"pgd": [0.5, 0.6, 0.9]}}), SETTINGS, 1, Given(made_up))
    assert [check["published"] for check in result["checks"]] == [None, pytest.approx(0.3), None]


def test_a_real_profile_is_that_of_sustainability(tmp_path):
    with local_engine(None, 0) as engine:
        result = run_profiles(claim(), SETTINGS, 1, Work(tmp_path, engine, Reporter()))
    moons = data.load("moons", samples=64, val=16, test=40, seed=0)
    model = Network(model="lsa-a", model_args={"width": 8}).create(moons, 0)
    fit(model, moons, epochs=2, keep="last", validate_with="none", seed=0)
    chosen = {
        "pgd": attacks.PGD(threat=Threat(eps=0.2, box=None), steps=3),
        "gaussian": attacks.Gaussian(std=0.2, box=None),
    }
    inputs = moons.test.stratified(24, 0)
    profile = layers.sustainability(model, inputs, chosen, measure="centred", seed=0)
    mine = torch.tensor([[v["mean"] for v in result["profiles"]["A"]["displacement"]["centred"][n]] for n in chosen])
    torch.testing.assert_close(mine, profile.mean.float())
    assert result["profiles"]["A"]["layers"] == profile.layers == ["elu1", "elu2", "elu3"]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"setup": "A", "above": ["pgd"]}, "each has the entries above, over, setup or"),
        ({"setup": "B", "peak": 0, "perturbation": "pgd"}, "no setup 'B'"),
        ({"setup": "A", "peak": 0, "perturbation": "pdg"}, "did you mean 'pgd'"),
        ({"setup": "A", "above": ["pgd"], "over": ["salt"]}, "no perturbation 'salt'"),
    ],
)
def test_wrong_checks_are_answered_before_anything_runs(check, message):
    with pytest.raises(UserError, match=message):
        run_profiles(claim([check]), SETTINGS, 1, work=None)
