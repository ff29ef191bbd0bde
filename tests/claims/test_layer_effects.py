"""Claims on layer effects: correlations against numbers made up by hand, and one real run against the audit."""

import copy
import math

import pytest

from buttress import audits, data, fit
from buttress.attacks import PGD
from buttress.audits.layers import Layers
from buttress.claims.layer_effects import run_layer_effects
from buttress.claims.layer_effects_text import effects_summary, effects_tables
from buttress.claims.recipe import Claim
from buttress.claims.work import Work
from buttress.claims.worker_pool import local_engine
from buttress.errors import UserError
from buttress.jobs.settings import Network, Reporter
from buttress.threat import Threat

SETUP = {
    "source": {"data": "moons", "data_args": {"samples": 64, "val": 16, "test": 40}},
    "architecture": {"model": "lsa-a", "model_args": {"width": 8}},
    "training": {"epochs": 2, "keep": "last", "schedule": {"name": "constant"}},
    "eps": 0.3,
    "layers": ["elu1", "elu2", "elu3"],
    "strengthened": ["elu1", "elu3"],
}
SETTINGS = {
    "setups": {"A": SETUP},
    "trainings": {"normal": "standard", "adversarial": {"name": "fast", "threat": {"eps": "$eps"}}},
    "audit": {
        "perturbations": [{"name": "pgd", "steps": 3}],
        "tolerance_inputs": 4,
        "tolerance_steps": 2,
        "bisections": 2,
    },
    "measures": ["margin", "tolerance"],
    "effects": ["recovery"],
    "strengthen": {"training": "adversarial", "measure": "centred", "gamma": 0.1, "seeds": 1},
    "attack": {"name": "pgd", "steps": 3},
    "inputs": 40,
    "attacked": 20,
}
CHECKS = [{"measure": "margin", "foretells": "recovery"}, {"measure": "margin", "foretells": "strengthening"}]


def claim(checks=CHECKS):
    return Claim(source="", statement="", kind="layer effects", checks=checks)


class Given:
    """Answers jobs with made-up ranks, and robust accuracies of 50, or 60 with the first layer strengthened."""

    def __init__(self, ranks):
        self.ranks = ranks

    def run(self, jobs, title):
        self.jobs = jobs
        return [self.result(job) for job in jobs]

    def result(self, job):
        strengthened = job["defence"].get("layers") if isinstance(job["defence"], dict) else None
        result = {"accuracy": {"PGD-3": [90.0, 60.0 if strengthened == ["elu1"] else 50.0]}}
        if "finding" in job:
            by = {name: {"rank": ranks} for name, ranks in self.ranks(job).items()}
            found = {"layers": SETUP["layers"], "ranks": {"by": by}, "patching_inputs": 7}
            result["finding"] = {"data": found}
        return result


def same(job):
    return {"margin": [1, 2, 3], "tolerance": [3, 2, 1], "recovery": [1, 2, 3]}


def test_correlations_are_over_layers_and_their_mean_over_networks():
    def ranks(job):
        # Of the normally trained network two layers are the other way round: a correlation of 0.5.
        return {**same(job), **({"margin": [2, 1, 3]} if job["defence"] == "standard" else {})}

    work = Given(ranks)
    result = run_layer_effects(claim(), SETTINGS, 2, work)
    patching, strengthening = (check["under"]["PGD-3"] for check in result["checks"])
    assert patching["seeds"] == pytest.approx([0.75, 0.75])
    assert (patching["positive"], patching["networks"], patching["undefined"]) == (4, 4, 0)
    assert patching["verdict"] == "direction only"  # seeds that agree to the digit have no interval
    assert strengthening["seeds"] == [pytest.approx(1.0)]  # elu1 before elu3, by margin and by gain
    assert result["correlations"]["recovery"]["tolerance"]["lsa-a"]["mean"] == pytest.approx(-1)
    assert result["strengthened"]["A"]["elu1"]["mean"] == 10
    assert result["strengthened"]["A"]["elu3"]["mean"] == 0
    assert result["networks"]["A"]["normal"]["places"]["margin"] == {"elu1": 2, "elu2": 1, "elu3": 3}
    assert [job["seed"] for job in work.jobs] == [0, 0, 0, 0, 1, 1]
    assert work.jobs[1]["defence"] == {"name": "fast", "threat": {"eps": 0.3}}
    assert work.jobs[2]["defence"] == {
        "name": "layer-regularised",
        "base": {"name": "fast", "threat": {"eps": 0.3}},
        "layers": ["elu1"],
        "measure": "centred",
        "gamma": 0.1,
    }


def test_networks_whose_layers_are_alike_are_left_out_and_counted():
    def ranks(job):
        if job["defence"] == "standard":
            return {**same(job), "recovery": [1, 1, 1]}
        return same(job) if job["seed"] else {"margin": [1, 2, 3], "tolerance": [None, None, 1]}  # nothing is beaten

    result = run_layer_effects(claim(), SETTINGS, 2, Given(ranks))
    found = result["correlations"]["recovery"]["margin"]["all"]
    assert (found["seeds"], found["undefined"]) == ([pytest.approx(1.0)], 3)
    never = run_layer_effects(claim(), SETTINGS, 1, Given(lambda job: {"margin": [1, 1, 1]}))
    found = never["correlations"]["recovery"]["margin"]["all"]
    assert math.isnan(found["mean"])
    assert never["checks"][0]["under"]["PGD-3"]["verdict"] == "not reproduced"
    text = effects_tables(never)
    assert "| margin | - | - |" in text
    assert "nan" not in text + effects_summary(never)


def test_the_texts_say_which_measure_foretells_what():
    result = run_layer_effects(claim(), SETTINGS, 2, Given(same))
    for group in ("all", "lsa-a"):
        result["correlations"]["recovery"]["margin"][group].update(low=0.5, high=1.5)
        result["correlations"]["recovery"]["tolerance"][group].update(low=-1.5, high=-0.5)
    summary = effects_summary(result)
    assert "- recovery: foretold by margin (+1.00); contrary to tolerance (-1.00)." in summary
    assert "- strengthening: not told by margin (+1.00), tolerance (-1.00)." in summary
    tables = effects_tables(result)
    assert "| margin | +1.00 (+0.50 to +1.50), 4 of 4 | +1.00 (+0.50 to +1.50), 4 of 4 |" in tables
    assert "| A | elu1 | +10.0 |" in tables
    assert "| A | adversarial | 90.0 | 50.0 | 7.0 |" in tables


def test_a_real_network_has_the_ranks_of_its_audit(tmp_path):
    with local_engine(None, 0) as engine:
        result = run_layer_effects(claim(), SETTINGS, 1, Work(tmp_path, engine, Reporter()))
    moons = data.load("moons", samples=64, val=16, test=40, seed=0)
    model = Network(model="lsa-a", model_args={"width": 8}).create(moons, 0)
    fit(model, moons, epochs=2, keep="last", validate_with="none", seed=0)
    attack = PGD(threat=Threat(eps=0.3, box=None), steps=3)
    question = Layers(
        perturbations=[attack], layers=SETUP["layers"], tolerance_inputs=4, tolerance_steps=2, bisections=2
    )
    (finding,) = audits.run(model, moons.test.stratified(40, 0), [question], seed=0)
    expected = dict(zip(SETUP["layers"], finding.data["ranks"]["by"]["margin"]["rank"], strict=True))
    assert result["networks"]["A"]["normal"]["places"]["margin"] == expected


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"measure": "margin"}, "each has the entries measure, foretells and perhaps among; got measure"),
        ({"measure": "margn", "foretells": "recovery"}, "measure: there is no 'margn'; did you mean 'margin'"),
        ({"measure": "recovery", "foretells": "recovery"}, "recovery foretells itself: name another effect"),
        ({"measure": "margin", "foretells": "few"}, "foretells: there is no 'few'"),
        ({"measure": "margin", "foretells": "recovery", "among": "cnn"}, "among: there is no 'cnn'"),
    ],
)
def test_wrong_checks_are_answered_before_anything_runs(check, message):
    with pytest.raises(UserError, match=message):
        run_layer_effects(claim([check]), SETTINGS, 1, work=None)


def test_unknown_measures_are_answered_before_anything_runs():
    settings = copy.deepcopy(SETTINGS) | {"measures": ["displacement"]}
    with pytest.raises(UserError, match="layers have no ranks by 'displacement'"):
        run_layer_effects(claim(), settings, 1, work=None)
