import json
import sys
from dataclasses import replace

import pytest
from tests.reporters import Heard

from buttress import tasks
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.layers import Layers
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.iat import IAT
from buttress.jobs import Network, Source, Training, harden
from buttress.jobs.hardening_plan import HardeningPlan
from buttress.jobs.hardening_start import Start
from buttress.threat import Threat

pytestmark = pytest.mark.usefixtures("_short_searches")


def test_the_layers_are_chosen_on_validation_data_by_the_measure_that_is_trained(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        sys.modules["buttress.jobs.harden"],
        "vulnerable_layers",
        lambda subject, questions, *further: asked.extend([subject.ids, questions]) or ["act1"],
    )
    source = Source(data="moons", data_args={"samples": 60, "test": 24})
    short = Training(epochs=1)
    job = {"architecture": Network(model="mlp"), "source": source, "training": short, "attacks": [FGSM()]}
    found = harden(out=tmp_path / "job", measure="centred", gamma=0.5, **job)
    assert asked[0].tolist() == source.load(0)[0].val.ids.tolist()
    assert [question.measure for question in asked[1] if isinstance(question, Layers)] == ["centred"]
    assert {f.data["measure"] for findings in found.values() for f in findings if f.kind == "layers"} == {"centred"}


@pytest.mark.parametrize(
    ("task", "base", "measure"),
    [
        (tasks.classification, None, "between_classes"),
        (tasks.classification, IAT(FGSM(), independent=False), "centred"),  # mixes inputs of several classes
        (tasks.Regression(), AdversarialTraining(PGD()), "centred"),
    ],
)
def test_the_usual_measure_is_the_best_one_that_the_task_and_the_base_have(task, base, measure):
    source = Source(data="moons", data_args={"samples": 60, "test": 24})
    start = replace(Start.of(None, Network(model="mlp"), source, 0), task=task)
    asked = {"layers": ["act1"], "gamma": 0.5, "warmup": None, "training": Training(), "attacks": None}
    plan = HardeningPlan.of(start, threat=Threat(eps=0.2, box=None), base=base, measure=None, **asked)
    assert plan.regularised.measure == measure


def facts_start(job):
    return json.loads((job / "report" / "findings.json").read_text())["facts"]["settings"]["start"]


def test_the_whole_job_as_a_function(tmp_path):
    """Networks of one seed start alike: with gamma 0, base and hardened are the same network."""
    heard = Heard()
    found = harden(
        out=tmp_path / "job",
        architecture=Network(model="mlp"),
        source=Source(data="moons", data_args={"samples": 60, "test": 24}),
        threat=Threat(eps=0.2),
        training=Training(epochs=1),
        attacks=[FGSM()],
        gamma=0.0,
        reporter=heard,
    )
    original, base, hardened = found.values()
    assert base[0].data["stands"] == hardened[0].data["stands"]
    assert base[1].data["mean"] == hardened[1].data["mean"] != original[1].data["mean"]
    assert {p.name for p in (tmp_path / "job").iterdir()} == {"original", "base", "hardened", "report"}
    assert heard.lines[-1] == f"report: {tmp_path / 'job' / 'report' / 'report.html'}"
    same = "mlp is trained first, as original; base and hardened start from the same new weights as it"
    assert facts_start(tmp_path / "job") == same
    assert same in heard.lines
    nothing = "with gamma 0 nothing is regularised, and hardened is base once more"
    assert nothing in heard.lines
    assert f"AT-LR was trained with gamma 0, warm-up 1 epoch: {nothing}." in heard.lines[-2]
    assert heard.lines[-2].startswith("From original to AT-LR: clean accuracy")
    assert "the same inputs. There is no demonstrable gain in robust accuracy from AT to AT-LR." in heard.lines[-2]
    facts = json.loads((tmp_path / "job" / "report" / "findings.json").read_text())["facts"]
    rows = facts["robust accuracy against the last"]
    assert [(row["from"], row["to"], row["change"]) for row in rows][-1] == ("AT", "AT-LR", "none")
    assert facts["severity"] != "good"
