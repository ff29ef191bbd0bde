"""The weight of a regularisation, chosen by short trainings; and the job that does so."""

import json

import pytest
from torch import nn

from buttress.attacks.gradient.fgsm import FGSM
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.jobs import Network, Source, Training, harden
from buttress.jobs.regularised_training import GAMMAS, GammaTrial, best, trial_defence, trial_training
from buttress.jobs.settings import Reporter
from buttress.threat import Threat
from buttress.training import Trained
from buttress.training.monitors import LayerCollapse


class Heard(Reporter):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def trial(gamma, clean, robust):
    return GammaTrial(gamma, 1, clean, robust)


def test_the_most_robust_is_taken_then_the_most_accurate_then_the_smallest():
    assert best([trial(0.1, 0.9, 0.4), trial(0.3, 0.5, 0.5)]).gamma == 0.3
    assert best([trial(0.1, 0.8, 0.5), trial(0.3, 0.9, 0.5)]).gamma == 0.3
    assert best([trial(0.3, 0.9, 0.5), trial(0.1, 0.9, 0.5), trial(1.0, 0.9, 0.5)]).gamma == 0.1


def test_the_end_of_a_trial_counts_and_not_its_best_epoch():
    history = [{"clean": 0.9, "robust": 0.6}, {"clean": 0.1, "robust": 0.1}]
    assert GammaTrial.of(1.0, Trained(nn.Identity(), history, 1)) == GammaTrial(1.0, 2, 0.1, 0.1)


@pytest.mark.parametrize(("epochs", "short"), [(20, 5), (21, 6), (3, 1), (1, 1)])
def test_a_trial_has_a_quarter_of_the_epochs_and_of_the_warmup(epochs, short):
    training = Training(epochs=epochs)
    assert trial_training(training).epochs == short
    whole = LayerRegularised(AdversarialTraining(), layers=["a", "b"], gamma=[1.0, 2.0], warmup=4.0, measure="cosine")
    part = trial_defence(whole, 0.1, training)
    assert (part.gamma, part.warmup) == ((0.1, 0.1), pytest.approx(4.0 * short / epochs))
    assert (part.base, part.layers, part.measure) == (whole.base, whole.layers, whole.measure)


JOB = {
    "architecture": Network(model="mlp"),
    "source": Source(data="moons", data_args={"samples": 60, "test": 24}),
    "threat": Threat(eps=0.2),
    "attacks": [FGSM()],
    "inputs": 8,
}


def spreads(folder):
    """The layers whose spread the history of a run has."""
    last = json.loads((folder / "history.json").read_text())[-1]
    return {name.removeprefix("spread ") for name in last if name.startswith("spread ")}


def facts_of(folder):
    return json.loads((folder / "report" / "findings.json").read_text())["facts"]["settings"]


def test_the_job_chooses_gamma_says_from_what_and_watches_the_layer(tmp_path):
    heard, job = Heard(), tmp_path / "job"
    harden(out=job, layers=["act1"], training=Training(epochs=1), reporter=heard, **JOB)
    tried = [f"{gamma:g}" for gamma in GAMMAS]
    facts = facts_of(job)
    assert list(facts["gamma chosen from"]) == tried
    assert all("robust" in words and "after 1 epoch" in words for words in facts["gamma chosen from"].values())
    assert facts["gamma"] in GAMMAS
    assert [line.split(":")[0] for line in heard.lines if line.startswith("gamma ")] == [f"gamma {g}" for g in tried]
    assert f"gamma: {facts['gamma']:g}, the most robust of {len(GAMMAS)}" in heard.lines
    assert (spreads(job / "base"), spreads(job / "hardened")) == (set(), {"act1"})
    # PGD-10 crafts by 20 passes, training takes 2; the regularised one makes a clean pass more, of 2.
    assert facts["passes of each input trained on"] == {"AT": 22, "AT-LR": 24, "choosing gamma": 24 * len(GAMMAS)}


def test_a_gamma_and_a_monitor_that_are_given_are_used_as_they_are(tmp_path):
    job, own = tmp_path / "job", LayerCollapse(layers=["act2"], then="stop")
    short = Training(epochs=1, monitors=[own])
    found = harden(out=job, layers=["act1"], training=short, gamma=0.07, measure="tolerance", **JOB)
    assert {f.data["measure"] for findings in found.values() for f in findings if f.kind == "layers"} == {"centred"}
    assert {path.name for path in job.iterdir()} == {"original", "base", "hardened", "report"}
    assert facts_of(job)["gamma"] == 0.07
    assert "gamma chosen from" not in facts_of(job)
    assert (spreads(job / "base"), spreads(job / "hardened")) == ({"act2"}, {"act2"})


def test_the_dry_run_tells_what_the_choice_costs(tmp_path):
    for gamma, told in ((None, True), (0.3, False)):
        heard = Heard()
        harden(out=tmp_path / "new", training=Training(epochs=8), gamma=gamma, dry_run=True, reporter=heard, **JOB)
        lines = [line for line in heard.lines if line.startswith("choosing gamma: 4 trainings of 2 epochs, each about")]
        assert bool(lines) is told


def test_an_unknown_measure_is_told_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="there is no measure 'tolerence'"):
        harden(out=tmp_path / "job", measure="tolerence", **JOB)
    assert not (tmp_path / "job").exists()
