"""The weight of a regularisation, chosen by short trainings; and the job that does so."""

import json

import pytest
import torch
from tests.reporters import Heard
from torch import nn

from buttress.attacks.gradient.fgsm import FGSM
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.jobs import Network, Source, Training, harden
from buttress.jobs.regularised_training import (
    GAMMAS,
    Trial,
    WeightChoice,
    best_gamma,
    best_warmup,
    trial_training,
    usual_figures,
)
from buttress.threat import Threat
from buttress.training import Trained
from buttress.training.monitors import LayerCollapse

pytestmark = pytest.mark.usefixtures("_short_searches")


def trial(gamma, right, warmup=1.0, n=100):
    """A trial after which the first inputs are right."""
    hits = torch.arange(n) < right
    return Trial(gamma, warmup, 1, hits, hits)


@pytest.mark.parametrize(
    ("rights", "gamma", "gain"),
    [
        ((40, 40, 40, 40), 0.03, False),
        ((40, 38, 42, 45), 0.03, False),  # five of a hundred more: p is 0.06
        ((40, 20, 20, 10), 0.03, False),
        ((40, 40, 47, 30), 0.2, True),  # seven: p is 0.0156, and for three comparisons 5 % are 0.0167
        ((40, 40, 50, 55), 0.2, True),  # of two that gain the smaller, for the other does not gain on it
        ((40, 40, 50, 60), 1.0, True),
        ((40, 60, 60, 60), 0.03, True),
    ],
)
def test_a_gamma_is_taken_where_it_is_shown_to_gain_else_the_smallest(rights, gamma, gain):
    best, gains = best_gamma([trial(g, right) for g, right in zip((0.0, *GAMMAS), rights, strict=True)])
    assert (best.gamma, gains) == (gamma, gain)


def test_which_inputs_are_right_counts_and_not_how_many():
    """As many gained as lost are no gain; and the same difference is one where no input is lost."""
    hits = torch.zeros(100, dtype=torch.bool)
    before, after, plain = hits.clone(), hits.clone(), hits.clone()
    before[:30], after[20:58], plain[:38] = True, True, True
    first, mixed, clear = (Trial(0.0, 1.0, 1, one, one) for one in (before, after, plain))
    assert (mixed.gains_on(first), clear.gains_on(first), first.gains_on(clear)) == (False, True, False)


def test_a_longer_warmup_is_taken_where_it_gains():
    usual = trial(0.2, 40)
    assert best_warmup(usual, [trial(0.2, 42, 5.0), trial(0.2, 44, 10.0)]) is usual
    assert best_warmup(usual, [trial(0.2, 52, 5.0), trial(0.2, 50, 10.0)]).warmup == 5.0
    assert best_warmup(usual, [trial(0.2, 52, 5.0), trial(0.2, 52, 10.0)]).warmup == 5.0


@pytest.mark.parametrize(("epochs", "short"), [(20, 5), (21, 6), (3, 1), (1, 1)])
def test_a_trial_has_a_quarter_of_the_epochs_and_its_last_weights_are_judged(epochs, short):
    training = trial_training(Training(epochs=epochs))
    assert (training.epochs, training.keep) == (short, "last")


def chosen(choice, robust, regularised=None):
    """What a choice comes to, and the trainings it asks for, where so many of 100 validation inputs are right."""
    asked, heard = [], Heard()

    def run(folder, defence, title, training):
        whole = defence.warmup * choice.training.epochs / training.epochs
        asked.append((defence.gamma, whole, training.epochs))
        assert (defence.base, defence.layers, defence.measure) == (regularised.base, regularised.layers, "cosine")
        return Trained(nn.Identity(), [{}], 1)

    def judge(trained):
        hits = torch.arange(100) < robust[len(asked) - 1]
        return torch.ones(100, dtype=torch.bool), hits

    regularised = LayerRegularised(AdversarialTraining(), layers=["a", "b"], measure="cosine")
    result = choice.choose(regularised, run, judge, heard)
    assert len(asked) == len(result.trials)
    assert len(asked) in (choice.counts[0], sum(choice.counts))
    assert heard.lines[-1:] == ([f"chosen: {result.title}: {result.reason}"] if asked else [])
    return result, result.defence.gamma, result.defence.warmup, asked


@pytest.mark.parametrize(
    ("robust", "best", "words"),
    [
        ((20, 20, 40, 40, 60, 45), 5.0, "a warm-up of 5 epochs gains on one of 1 epoch"),
        ((20, 20, 40, 40, 45, 60), 10.0, "a warm-up of 10 epochs gains on one of 1 epoch"),
        ((20, 20, 40, 40, 41, 42), 1.0, "no longer warm-up gains on 1 epoch"),
    ],
)
def test_gamma_is_chosen_first_and_then_how_slowly_it_rises(robust, best, words):
    result, gamma, warmup, asked = chosen(WeightChoice(Training(epochs=20)), robust)
    tried = [*((gamma, 1.0) for gamma in (0.0, *GAMMAS)), (GAMMAS[1], 5.0), (GAMMAS[1], 10.0)]
    assert asked == [((gamma, gamma), pytest.approx(warmup), 5) for gamma, warmup in tried]
    assert (gamma, warmup, result.gain) == ((GAMMAS[1], GAMMAS[1]), best, True)
    won = "it gains on gamma 0 (20 inputs gained, 0 lost) of 100 validation inputs by McNemar's exact test"
    assert result.reason == f"{won}; {words}"


def test_where_no_gamma_gains_the_smallest_is_taken_and_no_warmup_is_tried():
    result, gamma, warmup, asked = chosen(WeightChoice(Training(epochs=20)), (16, 16, 15, 13))
    assert (gamma, warmup, result.gain, len(asked)) == ((GAMMAS[0],) * 2, 1.0, False, 4)
    assert result.reason == (
        "no gamma gains on gamma 0 on 100 validation inputs by McNemar's exact test, so the smallest is taken"
    )


def test_what_is_given_is_not_tried():
    given = {"gamma": 0.2, "warmup": 3.0}
    result, *rest = chosen(WeightChoice(Training(epochs=20), **given), ())
    assert (rest, result.gain, result.facts) == ([(0.2, 0.2), 3.0, []], None, {"gamma": 0.2, "warm-up": 3.0})
    result, gamma, warmup, asked = chosen(WeightChoice(Training(epochs=20), gamma=0.2), (10, 20, 30))
    assert (gamma, warmup, [whole for _, whole, _ in asked]) == ((0.2, 0.2), 10.0, [1.0, 5.0, 10.0])
    assert result.gain is None
    _, gamma, warmup, asked = chosen(WeightChoice(Training(epochs=20), warmup=3.0), (10, 10, 10, 40))
    assert (gamma, warmup, len(asked)) == ((1.0, 1.0), 3.0, 4)
    assert chosen(WeightChoice(Training(epochs=20), gamma=0.0), ())[1:] == ((0.0, 0.0), 1.0, [])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"warmup": 100.0}, "warmup 100 is longer than the training, which ends after 3: give 3 or less, or more"),
        ({"warmup": -1.0}, "warmup must be a finite number of 0 or more; got -1.0"),
        ({"gamma": float("nan")}, "gamma must be a finite number of 0 or more; got nan"),
    ],
)
def test_settings_that_mean_nothing_are_told_before_anything_is_trained(settings, line, tmp_path):
    with pytest.raises(UserError, match=line):
        harden(out=tmp_path / "job", training=Training(epochs=3), **settings, **JOB)
    assert not (tmp_path / "job").exists()


def test_what_is_usual_is_the_lowest_of_an_unregularised_training():
    history = [
        {"spread a": 0.4, "dimensions a": 3.0, "clean": 0.1},
        {"spread a": 0.5, "dimensions a": 2.0, "common a": 0},
    ]
    assert usual_figures(history) == {"spread a": 0.4, "dimensions a": 2.0}
    assert usual_figures([{"clean": 0.1}]) == {}


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
    tried = [f"gamma {gamma:g}, warm-up 1 epoch" for gamma in (0.0, *GAMMAS)]  # half of the training would be less
    facts = facts_of(job)
    assert list(facts["chosen from"]) == tried
    assert all("robust" in words and "after 1 epoch" in words for words in facts["chosen from"].values())
    assert [line.split(":")[0] for line in heard.lines if line.startswith("gamma ")] == tried
    assert (facts["gamma"], facts["warm-up"]) == (GAMMAS[0], 1)
    assert f"chosen: {tried[1]}: {facts['choice']}" in heard.lines
    assert facts["choice"].startswith("no gamma gains on gamma 0 on 500 validation inputs")
    assert f"AT-LR was trained with {tried[1]}: {facts['choice']}." in heard.lines[-2]
    assert (spreads(job / "base"), spreads(job / "hardened")) == ({"act1"}, {"act1"})
    # PGD-10 crafts by 20 passes, training takes 2; the regularised one makes a clean pass more, of 2.
    assert facts["passes of each input trained on"] == {"AT": 22, "AT-LR": 24, "choosing gamma": 22 + 24 * len(GAMMAS)}


def test_a_gamma_and_a_monitor_that_are_given_are_used_as_they_are(tmp_path):
    """No spread is usual for this monitor; what it says of the regularised training is in the headline."""
    job, own = tmp_path / "job", LayerCollapse(layers=["act2"], reference={"spread act2": 9.0}, then="stop")
    short = Training(epochs=1, monitors=[own])
    given, heard = {"gamma": 0.07, "warmup": 0.5, "measure": "tolerance"}, Heard()
    found = harden(out=job, layers=["act1"], training=short, reporter=heard, **given, **JOB)
    assert {f.data["measure"] for findings in found.values() for f in findings if f.kind == "layers"} == {"centred"}
    assert {path.name for path in job.iterdir()} == {"original", "base", "hardened", "report"}
    assert (facts_of(job)["gamma"], facts_of(job)["warm-up"]) == (0.07, 0.5)
    assert "chosen from" not in facts_of(job)
    assert (spreads(job / "base"), spreads(job / "hardened")) == ({"act2"}, {"act2"})
    report = json.loads((job / "report" / "findings.json").read_text())["facts"]
    assert "Training AT-LR, epoch 1: values hardly differ between inputs at act2 (by " in report["headline"]
    assert report["headline"] in heard.lines
    assert report["severity"] in ("warning", "bad")


@pytest.mark.parametrize(
    ("given", "costs"),
    [
        ({}, "4 trainings of 2 epochs (2 more where a gamma shows a gain), in all up to 1.5 times the whole training"),
        ({"gamma": 0.3}, "3 trainings of 2 epochs, in all up to 0.75 times the whole training"),
        ({"warmup": 1.0}, "4 trainings of 2 epochs, in all up to 1 times the whole training"),
        ({"gamma": 0.3, "warmup": 1.0}, None),
    ],
)
def test_the_dry_run_tells_what_the_choice_costs(tmp_path, given, costs):
    heard = Heard()
    harden(out=tmp_path / "new", training=Training(epochs=8), dry_run=True, reporter=heard, **given, **JOB)
    lines = [line for line in heard.lines if line.startswith("choosing gamma")]
    assert [line.partition("; give --gamma and --warmup to spare it; each about")[0] for line in lines] == (
        [] if costs is None else [f"choosing gamma and its warm-up: {costs}"]
    )
    assert heard.lines[-1].startswith("from base on all trainings together: about ")
    assert heard.lines[-1].endswith("; --epochs (now 8) shortens them")


def test_an_unknown_measure_is_told_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="there is no measure 'tolerence'"):
        harden(out=tmp_path / "job", measure="tolerence", **JOB)
    assert not (tmp_path / "job").exists()
