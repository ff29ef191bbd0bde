"""Each detector fires on a collapse that is made, by name, and none on a calm training; what follows is as asked."""

import numpy as np
import pytest
import torch
from torch import nn

from buttress import load
from buttress.attacks.gradient.pgd import PGD
from buttress.data.arrays import from_arrays
from buttress.defences import Defence, Loss
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import SWA
from buttress.training import loop as loop_file
from buttress.training.monitors import CatastrophicOverfitting, probe
from buttress.training.validation import Validation

THREAT = Threat(eps=0.3)
NAMES = ("first_batch", "best_on_train", "diagnostics")


class Bent(nn.Module):
    """One feature, classes 0 and 1 by the sign of a score: a line, or a parabola that is negative around 0.35.

    From 0.5 the parabola's gradient leads past its trough to 0.2, where the score is positive again: FGSM fails where
    PGD does not.
    """

    def __init__(self):
        super().__init__()
        self.bend, self.shift = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        score = (1 - self.bend) * x + self.bend * ((x - 0.35).square() - 0.008) + self.shift
        return torch.cat([-score, score], 1)


class Scripted(Defence):
    """Sets bend and shift after each step to what stands in a script; trains nothing else."""

    def __init__(self, script, threat=THREAT):
        super().__init__()
        self.script, self.threat = script, threat

    @property
    def attack(self):
        return PGD(threat=self.threat, steps=2)

    def loss(self, model, batch, context):
        return Loss(0 * (model.bend + model.shift))

    def step(self, step):
        step.update(step.loss())
        bend, shift = self.script[step.context.index]
        with torch.no_grad():
            step.model.bend.fill_(bend)
            step.model.shift.fill_(shift)


LINE, BENT, HALF, LOST = (0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, -10.0)


@pytest.fixture
def points_at():
    """Inputs of class 1 at these places, eight of each: two batches of 8 an epoch for two places."""

    def make(*places):
        x = np.tile(np.array(places, dtype=np.float32), 10)[:, None]
        y = np.ones(len(x), dtype=np.int64)
        return from_arrays(
            "places", (x, y), (x, y), classes=["a", "b"], box=(0.0, 1.0), provenance="made here.", val=2 * len(places)
        )

    return make


@pytest.fixture
def watch(points_at, train):
    """A training by a script of steps, two an epoch; all inputs at 0.5 unless said otherwise."""

    def run(script, *monitors, places=(0.5, 0.5), defence=None, model=None, **options):
        settings = {"epochs": len(script) // 2, "batch_size": 8, "validate_with": "none", "keep": "last"}
        chosen = defence or Scripted(script)
        return train(model or Bent(), points_at(*places), chosen, **{**settings, **options}, monitors=monitors)

    return run


def alone(name, **options):
    return CatastrophicOverfitting(**{other: other == name for other in NAMES}, **options)


def twice(*epochs):
    return [step for step in epochs for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("first_batch", "first-batch (accuracy under PGD-5 on the epoch's first batch fell from 100.0% to 0.0%)"),
        ("best_on_train", "best-on-train (accuracy under PGD-10 on training inputs is 0.0%, its best was 100.0%)"),
        (
            "diagnostics",
            "diagnostics (accuracy on training inputs is 100.0% under FGSM, 0.0% under PGD-10 and was 100.",
        ),
    ],
)
def test_each_detector_fires_once_and_by_name_when_accuracy_under_pgd_collapses(name, sentence, watch):
    found = watch(twice(LINE, LINE, BENT, BENT), alone(name))
    (note,) = found.notes
    assert note.startswith(f"epoch 3: catastrophic overfitting by {sentence}")
    assert "stops" not in note
    there = [1.0 if name != "first_batch" and epoch == 4 else float(epoch == 3) for epoch in range(1, 5)]
    assert [row[f"fired_{name}"] for row in found.history] == there
    assert len(found.history) == 4


def test_the_figures_are_those_of_the_model(watch):
    """PGD beats the parabola everywhere and FGSM nowhere; the line's gradient is the same all over."""
    history = watch(twice(LINE, BENT), CatastrophicOverfitting()).history
    for name in ("first_batch_robust", "train_robust"):
        assert [row[name] for row in history] == [1.0, 0.0]
    assert [row["train_fgsm"] for row in history] == [1.0, 1.0]
    assert history[0]["gradient_cosine"] == history[0]["perturbation_cosine"] == pytest.approx(1.0)
    # Uniform in [0.2, 0.8], three quarters lie above 0.35: 0.75 - 0.25 in the mean, over 16 inputs.
    assert history[1]["gradient_cosine"] == pytest.approx(0.5, abs=0.5)
    assert history[1]["gradient_cosine"] < 1


def test_local_linearity_that_shrinks_fires_without_a_fall(watch):
    """At 0.9 nothing leads to the trough, so accuracy stays; at 0.45 an input lies beside it."""
    cosine = watch(twice(BENT), alone("diagnostics"), places=(0.45, 0.45)).history[0]["gradient_cosine"]
    assert -1 < cosine < 0.9
    script = twice((0.0, 5.0), (1.0, 5.0))
    (note,) = watch(script, alone("diagnostics", shrink=0.95), places=(0.45, 0.45)).notes
    assert note.startswith(
        "epoch 2: catastrophic overfitting by diagnostics (the cosine of gradients at an input and near"
    )
    assert not watch(script, alone("diagnostics", shrink=max(0.01, cosine - 0.05)), places=(0.45, 0.45)).notes


def test_all_detectors_in_one_sentence(watch):
    (note,) = watch(twice(LINE, BENT), CatastrophicOverfitting()).notes
    assert all(f"{name} (" in note for name in ("first-batch", "best-on-train", "diagnostics"))


def test_a_detector_that_has_been_quiet_fires_again(watch):
    notes = watch(twice(LINE, BENT, LINE, BENT), alone("best_on_train")).notes
    assert [note.partition(":")[0] for note in notes] == ["epoch 2", "epoch 4"]


def test_nothing_fires_on_a_calm_training(watch, network, images, train):
    assert not watch(twice(LINE, LINE, LINE), CatastrophicOverfitting(every=1)).notes
    slow = twice((0.0, 0.0), (0.0, -0.1), (0.0, -0.15))
    assert not watch(slow, CatastrophicOverfitting(every=1)).notes
    found = train(network(), images, epochs=4, monitors=[CatastrophicOverfitting(every=2)])
    assert not found.notes
    assert all(row[f"fired_{name}"] == 0 for row in found.history for name in NAMES)


def test_a_fall_that_is_small_enough_fires_nothing(watch):
    """Half of the inputs lie at 0.9, from where nothing beats the parabola."""
    script = twice(LINE, HALF)
    assert [row["train_robust"] for row in watch(script, alone("best_on_train"), places=(0.5, 0.9)).history] == [1, 0.5]
    assert watch(script, alone("best_on_train", fall=0.49), places=(0.5, 0.9)).notes
    assert not watch(script, alone("best_on_train", fall=0.51), places=(0.5, 0.9)).notes


def test_small_batches_may_differ_by_chance(watch):
    """Of 8 inputs, 3 standard errors are 0.70 from all to three, 0.65 from half to none, and 0.75 from all to none."""
    monitor = alone("first_batch", fall=0.1)
    falls = watch(twice(LINE, HALF), monitor, places=(0.5, 0.9))
    assert 0.2 < 1 - falls.history[1]["first_batch_robust"] <= 0.625
    assert not falls.notes
    assert watch(twice(LINE, LOST), monitor, places=(0.5, 0.9)).notes


def bent(trained):
    return tuple(float(value) for value in trained.model.state_dict().values())


def test_what_follows_is_as_asked(watch):
    script = twice(LINE, HALF, LOST, LOST)

    def run(**options):
        return watch(script, CatastrophicOverfitting(fall=0.6, diagnostics=False, **options), places=(0.5, 0.9))

    noted, stopped = run(), run(then="stop")
    previous, best = run(then="rollback"), run(then="rollback", restore="best-on-train")
    assert [len(t.history) for t in (noted, stopped, previous, best)] == [4, 3, 3, 3]
    assert [bent(t) for t in (noted, stopped, previous, best)] == [LOST, LOST, HALF, LINE]
    assert not noted.notes[0].endswith("stops")
    assert stopped.notes[0].endswith("; training stops")
    assert previous.notes[0].endswith("; training stops with the weights of the epoch before")
    assert best.notes[0].endswith("; training stops with the weights that were most robust on training inputs")
    assert [len(t.notes) for t in (noted, stopped, previous, best)] == [1, 1, 1, 1]
    for trained in (previous, best):
        assert (trained.history[-1]["clean_before_rollback"], trained.history[-1]["clean"]) == (0.0, 1.0)


def test_a_collapse_within_an_epoch_ends_training_there(watch, tmp_path):
    """Measured after each step: at the first step of the second epoch, which is cut short."""
    script = [LINE, LINE, BENT, LINE, LINE, LINE]
    monitor = alone("best_on_train", every=1, then="rollback")
    found = watch(script, monitor, out=tmp_path / "run")
    assert found.notes[0].startswith("epoch 2: ")
    assert [row["epoch"] for row in found.history] == [1, 2]
    assert found.history[1]["fired_best_on_train"] == 1
    assert bent(found) == LINE
    again = watch(script, monitor, out=tmp_path / "run", resume=True, model=Bent())
    assert (again.history, again.notes, bent(again)) == (found.history, found.notes, LINE)
    assert load(tmp_path / "run", Bent()).bend.detach() == 0.0


def test_in_the_first_epoch_there_is_only_the_best_to_go_back_to(watch):
    script = [LINE, BENT, BENT, BENT]
    found = watch(script, alone("best_on_train", every=1, then="rollback"))
    assert found.notes[0].endswith("with the weights that were most robust on training inputs")
    assert bent(found) == LINE


def test_what_was_gone_back_on_does_not_count_as_best(watch, monkeypatch):
    """Though it validates better: without an attack there, clean accuracy is all that counts."""
    answers = iter([0.5, 1.0, 0.5])
    monkeypatch.setattr(loop_file, "validate", lambda *_: Validation(next(answers), None))
    found = watch(twice(LINE, BENT), alone("first_batch", then="rollback"), keep="best")
    assert (bent(found), found.best_epoch) == (LINE, 1)
    assert [row["clean"] for row in found.history] == [0.5, 0.5]
    assert found.history[1]["clean_before_rollback"] == 1.0


def test_an_average_is_gone_back_on_too(watch):
    found = watch(
        twice(LINE, HALF, LOST),
        alone("best_on_train", fall=0.6, then="rollback"),
        places=(0.5, 0.9),
        average=SWA(start=0.0),
    )
    assert bent(found) == (0.5, 0.0)


def test_a_threat_is_needed_and_may_be_its_own(watch, tmp_path):
    with pytest.raises(UserError, match="catastrophic-overfitting needs a threat: the defence trains against none"):
        watch([], CatastrophicOverfitting(), defence=Standard(), epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    found = watch([], CatastrophicOverfitting(threat=THREAT), defence=Standard(), epochs=1)
    assert "first_batch_robust" in found.history[0]
    narrow = CatastrophicOverfitting(threat=Threat(eps=0.01))
    assert not watch(twice(LINE, BENT), narrow).notes


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_any_norm_will_do(norm, watch):
    script = twice(LINE, BENT)
    defence = Scripted(script, Threat(norm=norm, eps=0.3))
    assert "best-on-train" in watch(script, CatastrophicOverfitting(), defence=defence).notes[0]


def test_the_cosine_of_what_vanishes_is_0():
    one, other = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    assert probe.mean_cosine(one, other) == pytest.approx(0.5)
    assert probe.mean_cosine(one[:1], -other[:1]) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"then": "panic"}, "then must be one of note, stop, rollback; got 'panic'"),
        ({"restore": "first"}, "restore must be one of previous, best-on-train; got 'first'"),
        ({"fall": 20.0}, "fall must be a number in (0, 1); got 20.0"),
        ({"shrink": 0.0}, "shrink must be a number in (0, 1); got 0.0"),
        ({"every": 0}, "every must be a whole number of 1 or more; got 0"),
        ({"inputs": 0}, "inputs must be a whole number of 1 or more; got 0"),
        (dict.fromkeys(NAMES, False), "at least one of first_batch, best_on_train and diagnostics must be on"),
        (
            {"then": "rollback", "restore": "best-on-train", "best_on_train": False},
            "going back to the best on train needs the detector best_on_train on",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, line):
    with pytest.raises(UserError) as caught:
        CatastrophicOverfitting(**options)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("places", "fires"),
    [
        ([(0.9, 0.9, 0.5), (0.7, 0.96, 0.5)], True),  # accuracy under PGD and FGSM, and the cosine, epoch by epoch
        ([(0.9, 0.9, 0.5), (0.7, 0.94, 0.5)], False),  # the gap is too small
        ([(0.9, 0.9, 0.5), (0.76, 1.0, 0.4), (0.74, 1.0, 0.4)], True),
        ([(0.9, 0.9, 0.5), (0.76, 1.02, 0.5)], False),  # the fall is
        ([(0.5, 0.5, -0.02)], False),  # below half of itself, but no less than before
        ([(0.5, 0.5, -0.1), (0.5, 0.5, -0.06)], False),
        ([(0.5, 0.5, 0.5), (0.5, 0.5, 0.2)], True),
    ],
)
def test_the_rule_of_the_diagnostics(places, fires, watch, monkeypatch):
    class Told:
        def __init__(self, model, split, count, threat, seed, like, task):
            self.robust, self.single, self.cosine = next(figures)

        def single_step(self):
            return self.single, self.cosine, 0.0

    figures = iter(places)
    monkeypatch.setattr("buttress.training.monitors.catastrophic.Probe", Told)
    notes = watch(twice(*[LINE] * len(places)), alone("diagnostics", then="rollback", restore="previous")).notes
    assert bool(notes) == fires
