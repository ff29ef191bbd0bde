"""An option that would do nothing is refused by its name."""

import inspect

import pytest

from buttress.attacks import FGSM, PGD, Gaussian
from buttress.audits import Audit, Finding
from buttress.audits.layers import Layers
from buttress.audits.robustness import Robustness
from buttress.claims.engine_choice import EngineChoice
from buttress.claims.reproduce import reproduce
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.awp import AWP
from buttress.defences.standard import Standard
from buttress.engine.machine import Machine
from buttress.errors import UserError
from buttress.jobs.attack import attack
from buttress.jobs.audit import audit
from buttress.jobs.no_effect import refuse_twice, refuse_unused_search, refuse_unused_threat
from buttress.threat import Threat
from buttress.training import Schedule, TrainingConfig
from buttress.training.optimiser import Optimiser

OWN = Threat(eps=0.1)


class Count(Audit):
    def ask(self, subject):
        return Finding("count", "Count", "Some.", "info", {})


@pytest.mark.parametrize("audits", [[Count()], [Robustness(attacks=[PGD()])], [Count(), Robustness(attacks=[PGD()])]])
def test_attacks_that_no_audit_takes(audits, tmp_path):
    with pytest.raises(UserError, match=r"--attacks has no effect on the audits .*: leave it out, or name an audit"):
        audit("nowhere", out=tmp_path / "out", audits=audits, attacks=[FGSM()])
    for taking in ([Robustness()], [Count(), Layers()]):
        with pytest.raises(UserError, match="'nowhere' is no run's folder"):
            audit("nowhere", out=tmp_path / "out", audits=taking, attacks=[FGSM()])


@pytest.mark.parametrize("audits", [[Count()], [Robustness(attacks=[PGD(threat=OWN)], noises=[])]])
def test_a_threat_that_nothing_takes(audits, tmp_path):
    with pytest.raises(UserError, match=r"--threat has no effect on .*, with a threat of its own or none: leave"):
        audit("nowhere", out=tmp_path / "out", audits=audits, threat=Threat(eps=0.3))
    for by in (PGD(threat=OWN), Gaussian(std=0.1)):
        with pytest.raises(UserError, match="--threat has no effect on"):
            attack("nowhere", out=tmp_path / "out", by=by, threat=Threat(eps=0.3))
    with pytest.raises(UserError, match="'nowhere' is no run's folder"):
        attack("nowhere", out=tmp_path / "out", by=PGD(), threat=Threat(eps=0.3))


def test_options_of_a_reproduction_that_only_judges(tmp_path):
    values = {"scale": "full", "seeds": 2, "workers": 0, "data_dir": tmp_path, "work": tmp_path, "resume": True}
    values["dry_run"] = True
    unread = set(inspect.signature(reproduce).parameters) - {
        "name",
        "out",
        "document",
        "judge",
        "reporter",
        "machine",
        "engine",
    }
    assert set(values) == unread
    for name, value in values.items():
        option = name.replace("_", "-")
        with pytest.raises(UserError, match=f"--{option} has no effect with --judge, which measures nothing"):
            reproduce("lsa-table2-moon", judge=True, out=tmp_path, **{name: value})
    with pytest.raises(UserError, match="--devices has no effect on --judge, which measures nothing: leave it out"):
        reproduce("lsa-table2-moon", judge=True, out=tmp_path, machine=Machine(devices=2))
    with pytest.raises(UserError, match="--engine has no effect on --judge"):
        reproduce("lsa-table2-moon", judge=True, out=tmp_path, engine=EngineChoice(engine="ray"))
    with pytest.raises(UserError, match="--engine has no effect on a claim that reads results of others"):
        reproduce("lsa-abstract-gains", out=tmp_path, engine=EngineChoice(engine="ray"))


def test_a_threat_for_defences_and_a_search_of_what_crafts_nothing():
    own = AdversarialTraining(PGD(threat=OWN))
    for idle in (Standard(), own, AWP(own), AWP(Standard())):
        with pytest.raises(UserError, match="--threat has no effect on"):
            refuse_unused_threat([idle], Threat(eps=0.3))
    for given in (Threat(eps=0.3), Threat(), Threat(eps=0.0), Threat(eps=float("inf"))):
        refuse_unused_threat([AWP(AdversarialTraining())], given)
    config = TrainingConfig(search_precision="bf16")
    refuse_unused_search(config, AWP(AdversarialTraining()))
    with pytest.raises(UserError, match=r"--search-precision has no effect on awp.standard., which crafts nothing"):
        refuse_unused_search(config, AWP(Standard()))


def test_the_same_twice_and_the_same_with_other_settings():
    refuse_twice("attacks", [PGD(steps=3), PGD(steps=4), FGSM()])
    with pytest.raises(UserError, match="--attacks has PGD-3 twice: leave one out, or give it other settings"):
        refuse_twice("attacks", [PGD(steps=3), FGSM(), PGD(steps=3)])


def test_settings_of_another_schedule_or_optimiser():
    for settings in ({"milestones": (0.1,)}, {"factor": 0.5}, {"peak": 0.1}):
        with pytest.raises(
            UserError, match=r"is a setting of the schedule (piecewise|cyclic); cosine does not read it"
        ):
            Schedule(name="cosine", **settings)
    with pytest.raises(UserError, match="momentum and nesterov are settings of sgd; adam takes"):
        Optimiser(name="adam", momentum=0.5)
