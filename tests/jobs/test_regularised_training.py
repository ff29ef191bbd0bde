"""The weight of a regularisation, chosen by short trainings; and the job that does so."""

import json

import pytest
from torch import nn

from buttress.attacks.gradient.fgsm import FGSM
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.jobs import Network, Source, Training, harden
from buttress.jobs.regularised_training import GAMMAS, Trial, WeightChoice, best, trial_training
from buttress.jobs.settings import Reporter
from buttress.threat import Threat
from buttress.training import Trained
from buttress.training.monitors import LayerCollapse


class Heard(Reporter):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def trial(gamma, clean, robust, warmup=1.0):
    return Trial(gamma, warmup, 1, clean, robust)


def test_the_most_robust_is_taken_then_the_most_accurate_then_the_smallest_then_the_shortest():
    assert best([trial(0.1, 0.9, 0.4), trial(0.3, 0.5, 0.5)]).gamma == 0.3
    assert best([trial(0.1, 0.8, 0.5), trial(0.3, 0.9, 0.5)]).gamma == 0.3
    assert best([trial(0.3, 0.9, 0.5), trial(0.1, 0.9, 0.5), trial(1.0, 0.9, 0.5)]).gamma == 0.1
    assert best([trial(0.1, 0.9, 0.5, 4.0), trial(0.1, 0.9, 0.5, 2.0)]).warmup == 2.0


def test_the_end_of_a_trial_counts_and_not_its_best_epoch():
    history = [{"clean": 0.9, "robust": 0.6}, {"clean": 0.1, "robust": 0.1}]
    assert Trial.of(1.0, 2.0, Trained(nn.Identity(), history, 1)) == Trial(1.0, 2.0, 2, 0.1, 0.1)


@pytest.mark.parametrize(("epochs", "short"), [(20, 5), (21, 6), (3, 1), (1, 1)])
def test_a_trial_has_a_quarter_of_the_epochs(epochs, short):
    assert trial_training(Training(epochs=epochs)).epochs == short


def chosen(choice, robust, regularised=None):
    """What a choice comes to, and the trainings that it asks for, where these have the given robust accuracies."""
    asked = []

    def run(folder, defence, title, training):
        whole = defence.warmup * choice.training.epochs / training.epochs
        asked.append((defence.gamma, whole, training.epochs))
        assert (defence.base, defence.layers, defence.measure) == (regularised.base, regularised.layers, "cosine")
        return Trained(nn.Identity(), [{"clean": 0.5, "robust": robust[len(asked) - 1]}], 1)

    regularised = LayerRegularised(AdversarialTraining(), layers=["a", "b"], measure="cosine")
    defence, trials = choice.choose(regularised, run, Heard())
    assert len(asked) == len(trials) == choice.count
    return defence.gamma, defence.warmup, asked


@pytest.mark.parametrize(
    ("robust", "best"), [((1, 3, 2, 1, 4, 2), 5.0), ((1, 3, 2, 1, 2, 3.5), 10.0), ((1, 3, 2), 1.0)]
)
def test_gamma_is_chosen_first_and_then_how_slowly_it_rises(robust, best):
    gamma, warmup, asked = chosen(WeightChoice(Training(epochs=20)), (*robust, 0, 0, 0))
    tried = [*((gamma, 1.0) for gamma in GAMMAS), (GAMMAS[1], 5.0), (GAMMAS[1], 10.0)]
    assert asked == [((gamma, gamma), pytest.approx(warmup), 5) for gamma, warmup in tried]
    assert (gamma, warmup) == ((GAMMAS[1], GAMMAS[1]), best)


def test_what_is_given_is_not_tried():
    given = {"gamma": 0.2, "warmup": 3.0}
    assert chosen(WeightChoice(Training(epochs=20), **given), ()) == ((0.2, 0.2), 3.0, [])
    gamma, warmup, asked = chosen(WeightChoice(Training(epochs=20), gamma=0.2), (1, 2, 3))
    assert (gamma, warmup, [whole for _, whole, _ in asked]) == ((0.2, 0.2), 10.0, [1.0, 5.0, 10.0])
    gamma, warmup, asked = chosen(WeightChoice(Training(epochs=20), warmup=3.0), (1, 2, 3, 4))
    assert (gamma, warmup, len(asked)) == ((1.0, 1.0), 3.0, 4)
    assert chosen(WeightChoice(Training(epochs=20), gamma=0.0), ()) == ((0.0, 0.0), 1.0, [])


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
    tried = [f"gamma {gamma:g}, warm-up 1 epoch" for gamma in GAMMAS]  # half of the training would be less
    facts = facts_of(job)
    assert list(facts["chosen from"]) == tried
    assert all("robust" in words and "after 1 epoch" in words for words in facts["chosen from"].values())
    assert facts["gamma"] in GAMMAS
    assert facts["warm-up"] == 1
    assert [line.split(":")[0] for line in heard.lines if line.startswith("gamma ")] == tried
    assert f"chosen: gamma {facts['gamma']:g}, warm-up 1 epoch, the most robust of {len(GAMMAS)}" in heard.lines
    assert (spreads(job / "base"), spreads(job / "hardened")) == (set(), {"act1"})
    # PGD-10 crafts by 20 passes, training takes 2; the regularised one makes a clean pass more, of 2.
    assert facts["passes of each input trained on"] == {"AT": 22, "AT-LR": 24, "choosing gamma": 24 * len(GAMMAS)}


def test_a_gamma_and_a_monitor_that_are_given_are_used_as_they_are(tmp_path):
    job, own = tmp_path / "job", LayerCollapse(layers=["act2"], then="stop")
    short = Training(epochs=1, monitors=[own])
    found = harden(out=job, layers=["act1"], training=short, gamma=0.07, warmup=0.5, measure="tolerance", **JOB)
    assert {f.data["measure"] for findings in found.values() for f in findings if f.kind == "layers"} == {"centred"}
    assert {path.name for path in job.iterdir()} == {"original", "base", "hardened", "report"}
    assert (facts_of(job)["gamma"], facts_of(job)["warm-up"]) == (0.07, 0.5)
    assert "chosen from" not in facts_of(job)
    assert (spreads(job / "base"), spreads(job / "hardened")) == ({"act2"}, {"act2"})


@pytest.mark.parametrize(("given", "count"), [({}, 6), ({"gamma": 0.3}, 3), ({"gamma": 0.3, "warmup": 1.0}, 0)])
def test_the_dry_run_tells_what_the_choice_costs(tmp_path, given, count):
    heard = Heard()
    harden(out=tmp_path / "new", training=Training(epochs=8), dry_run=True, reporter=heard, **given, **JOB)
    lines = [line for line in heard.lines if line.startswith("choosing gamma")]
    assert [line.partition(", each about")[0] for line in lines] == [
        f"choosing gamma and its warm-up: {count} trainings of 2 epochs"
    ] * (count > 0)


def test_an_unknown_measure_is_told_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="there is no measure 'tolerence'"):
        harden(out=tmp_path / "job", measure="tolerence", **JOB)
    assert not (tmp_path / "job").exists()
