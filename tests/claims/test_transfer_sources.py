"""Transferred attacks of a table: from several networks, each trained in the job and told by its own label."""

import copy

import pytest
import torch

from buttress import data
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import run
from buttress.audits.robustness import Robustness
from buttress.claims import transfer_sources
from buttress.claims.jobs import run_job
from buttress.claims.recipe import Claim
from buttress.claims.setup_training import train
from buttress.claims.table import Table
from buttress.claims.work import key_of
from buttress.errors import UserError
from buttress.threat import Threat

MOONS = {"data": "moons", "data_args": {"noise": 0.1, "samples": 96, "val": 16, "test": 40}}
TRAINING = {"epochs": 4, "batch_size": 16, "keep": "last", "optimiser": {"lr": 0.02}}
SETUPS = {
    "A": {"source": MOONS, "architecture": {"model": "mlp", "model_args": {"hidden": [8]}}, "training": TRAINING},
    "B": {"source": MOONS, "architecture": {"model": "mlp", "model_args": {"hidden": [16, 8]}}, "training": TRAINING},
}
PLAIN = {"attack": {"name": "pgd", "steps": 3}}
MOVED = {
    "attack": {"name": "transfer", "attack": {"name": "pgd", "steps": 3}},
    "sources": {"twin": {"setup": "A"}, "deep": {"setup": "B", "defence": "$AT", "seed": 5}},
}
AT = {"name": "at", "attack": {"name": "fgsm", "threat": {"eps": 0.1, "box": None}}}
CHECK = {"better": "AT", "than": "plain", "at": 0.2}


class Asked:
    """Work that is not done: the jobs are kept."""

    def run(self, jobs, title):
        self.jobs = jobs
        accuracy = {"PGD-3": [90.0, 50.0]}
        return [{"accuracy": accuracy, "seconds": {"training": 1.0, "measuring": 1.0}} for _ in jobs]


def asked(seeds=1, **experiment):
    rows = [{"name": "plain", "defence": "standard"}, {"name": "AT", "defence": AT}]
    settings = {"setups": SETUPS, "eps": [0, 0.2], "attacks": [PLAIN, MOVED], "rows": rows, **experiment}
    work = Asked()
    Table(Claim(source="s", statement="s", kind="table", checks=[CHECK]), copy.deepcopy(settings), seeds, work).run()
    return work.jobs


def test_a_job_holds_all_that_its_sources_hang_on():
    first, _, second, _ = asked(seeds=2)
    plain, moved = first["accuracy"]["attacks"]
    assert plain == PLAIN
    assert moved["attack"] == MOVED["attack"]
    assert moved["sources"] == {
        "twin": {"setup": SETUPS["A"], "defence": "standard", "seed": 1000},
        "deep": {"setup": SETUPS["B"], "defence": AT, "seed": 5},
    }
    assert {name: s["seed"] for name, s in second["accuracy"]["attacks"][1]["sources"].items()} == {
        "twin": 1001,
        "deep": 5,
    }
    longer = {**SETUPS, "B": {**SETUPS["B"], "training": {**TRAINING, "epochs": 5}}}
    assert key_of(asked(setups=longer)[0]) != key_of(first)


def test_jobs_without_sources_are_called_as_they_were():
    """Results on disk are found by this digest: it must not change when experiments learn something new."""
    first, _ = asked(attacks=[PLAIN])
    assert first == {
        "setup": SETUPS["A"],
        "defence": "standard",
        "seed": 0,
        "split": "test",
        "accuracy": {"eps": [0, 0.2], "attacks": [PLAIN]},
    }
    assert key_of(first) == key_of(asked(attacks=[PLAIN], errors=True)[0])


def test_points_are_made_on_each_source_and_judged_by_the_network():
    job = asked()[0]
    transfer_sources._network.cache_clear()
    cold = run_job(job, None)["accuracy"]
    assert list(cold) == ["PGD-3", "PGD-3 from twin", "PGD-3 from deep"]
    assert run_job(job, None)["accuracy"] == cold  # from the networks that this process remembers
    assert transfer_sources._network.cache_info().hits == 2
    dataset = data.load("moons", **MOONS["data_args"], seed=0)
    victim = train(SETUPS["A"], "standard", dataset, 0)[0].model
    threat = Threat(eps=0.2, box=dataset.box)
    for name, setup, defence, seed in (("twin", "A", "standard", 1000), ("deep", "B", AT, 5)):
        other = train(SETUPS[setup], defence, dataset, seed)[0].model
        moved = Transfer(attack=PGD(steps=3, threat=threat), surrogate=other)
        question = Robustness(attacks=[moved], eps=[0, 0.2], reuse=False)
        (finding,) = run(victim, dataset.test, [question], classes=dataset.classes, seed=0)
        assert cold[f"PGD-3 from {name}"] == [100 * p["accuracy"] for p in finding.data["attacks"][0]["curve"]]
    assert cold["PGD-3"][0] == cold["PGD-3 from twin"][0] == cold["PGD-3 from deep"][0]


def test_the_network_itself_as_a_source_gives_the_attack_itself():
    """A twin of the same seed is the same network, and so the transfer is the attack without it."""
    moved = {**MOVED, "sources": {"itself": {"setup": "A", "seed": 0}}}
    accuracy = run_job(asked(attacks=[PLAIN, moved])[0], None)["accuracy"]
    assert accuracy["PGD-3 from itself"] == accuracy["PGD-3"]
    assert accuracy["PGD-3"][1] < accuracy["PGD-3"][0]


def test_a_source_that_does_not_fit_is_named():
    small = {**SETUPS["B"], "source": {"data": "digits"}, "training": {**TRAINING, "epochs": 1}}
    job = asked(setups={**SETUPS, "B": small})[0]
    with pytest.raises(UserError, match="sources: deep: "):
        run_job(job, None)


def changed(entry, **sources):
    return {**MOVED, **entry, **({"sources": sources} if sources else {})}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (changed({}, x={"setup": "C"}), "sources: x: there is no setup 'C'"),
        (changed({}, x={"setop": "A"}), "sources: x: there is no entry 'setop'; did you mean 'setup'"),
        (changed({}, x={"defence": "standard"}), "sources: x: missing"),
        (changed({}, x={"setup": "A", "defence": "$TA"}), "x has a blank .TA that nothing fills"),
        (changed({"attack": "pgd"}), "sources are for .name: transfer"),
        (changed({"attack": {"name": "pgd", "steps": 3}}), "sources are for .name: transfer"),
        (changed({"attack": {"name": "transfer", "surrogate": "runs/a"}}), "without a surrogate"),
        (changed({"attack": {"name": "transfer", "atack": "pgd"}}), "atack"),
        ({**MOVED, "sources": {}}, "sources must map names to networks"),
        (changed({}, x={"setup": ["A"]}), r"there is no setup \['A'\]"),
        ({**MOVED, "sources": {1: {"setup": "A"}}}, "a name must be a text; got 1"),
        ({"attack": "pgd", "input": 20}, "no entry 'input'; did you mean 'inputs'"),
        ({"inputs": 20}, "attacks: missing .* 'attack'"),
        ("pgd", "a mapping of .* was expected; got 'pgd'"),
    ],
)
def test_wrong_sources_are_answered_before_anything_runs(entry, message):
    with pytest.raises(UserError, match=message):
        asked(attacks=[PLAIN, entry])


def test_two_sources_of_one_label_are_refused():
    with pytest.raises(UserError, match="two sources give 'PGD-3 from twin'"):
        asked(attacks=[MOVED, {**MOVED, "inputs": 20}])


def test_a_transfer_alone_is_a_transfer_of_the_usual_attack():
    jobs = asked(attacks=[{"attack": "transfer", "sources": {"twin": {"setup": "A"}}}])
    dataset = data.load("moons", **MOONS["data_args"], seed=0)
    ((label, attack),) = transfer_sources.attacks_of(jobs[0]["accuracy"]["attacks"][0], dataset, 0, None)
    assert label == f"PGD-{PGD().steps} from twin"
    assert isinstance(attack.surrogate, torch.nn.Module)
