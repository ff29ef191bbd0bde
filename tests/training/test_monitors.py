"""What monitors see and may answer: a training is left to the last bit as it was, unless one ends it."""

import json
from dataclasses import dataclass

import pytest
import torch

from buttress import load
from buttress.cli import main
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.jobs.settings import Training
from buttress.threat import Threat
from buttress.training import Interrupted, read_facts
from buttress.training import loop as loop_file
from buttress.training.monitors import Action, CatastrophicOverfitting, EarlyStopping, Monitor, names
from buttress.training.validation import Validation


@dataclass(frozen=True)
class Ends(Monitor):
    """Answers once, after a step; keeps the first weights that it saw."""

    kind: str = "stop"
    step: int = 4

    def after_step(self, moment):
        moment.memory.setdefault("first", moment.snapshot())
        if moment.step != self.step:
            return None
        moment.figures["asked"] = 1.0
        return Action(self.kind, f"{self.kind} asked for", moment.memory["first"])


@dataclass(frozen=True)
class Meddler(Monitor):
    """Leaves modes, buffers and the random state in a mess."""

    def after_step(self, moment):
        assert not moment.model.training
        moment.model.train()
        moment.model(moment.batch.x)
        torch.manual_seed(1)

    after_epoch = after_step


def test_what_only_watches_changes_no_bit(network, images, train, state_of, same, tmp_path):
    """Adversarial training with BatchNorm, dropout and augmentation, by everyone who watches."""
    everyone = [CatastrophicOverfitting(every=2), EarlyStopping(patience=9), Meddler(), Ends("note")]
    plain = train(network(), images, out=tmp_path / "plain")
    watched = train(network(), images, out=tmp_path / "watched", monitors=everyone)
    same(watched.model.state_dict(), plain.model.state_dict())
    one, other = (state_of(tmp_path / name) for name in ("plain", "watched"))
    same(other[0], one[0])
    same(other[1]["optimizer"], one[1]["optimizer"])
    for row, more in zip(plain.history, watched.history, strict=True):
        assert row == {name: more[name] for name in row}
    assert watched.notes == ["epoch 2: note asked for"]
    assert plain.notes == []


def test_random_states_are_left_alone(network, images, train, same):
    before = torch.get_rng_state()
    train(network(), images, epochs=1, monitors=[CatastrophicOverfitting(every=1)])
    same(torch.get_rng_state(), before)


def test_a_monitor_watches_each_training_anew(network, images, train):
    monitor = CatastrophicOverfitting(every=2)
    one, other = (train(network(), images, monitors=[monitor]) for _ in range(2))
    assert one.history == other.history


def scripted(monkeypatch, *robust):
    answers = iter(robust)
    monkeypatch.setattr(loop_file, "validate", lambda *_: Validation(0.9, next(answers)))


@pytest.mark.parametrize(
    ("robust", "options", "epochs"),
    [
        ([0.1, 0.3, 0.2, 0.3, 0.4], {"patience": 2}, 4),  # an equal is no rise
        ([0.1, 0.3, 0.2, 0.31, 0.4, 0.5], {"patience": 2}, 6),
        ([0.1, 0.3, 0.2, 0.31, 0.4], {"patience": 2, "least": 0.05}, 4),
        ([0.5, 0.4], {"patience": 1}, 2),
        ([0.5, 0.4, 0.4], {"patience": 3}, 3),
    ],
)
def test_training_stops_when_robust_accuracy_has_not_risen_for_so_long(
    robust, options, epochs, monkeypatch, mlp, points, train
):
    scripted(monkeypatch, *robust)
    found = train(mlp(), points, epochs=len(robust), monitors=[EarlyStopping(**options)])
    assert len(found.history) == epochs
    if epochs < len(robust) or options["patience"] == 1:
        assert "training stops" in found.notes[0]
    else:
        assert not found.notes


def test_early_stopping_says_why_and_the_best_is_kept(monkeypatch, mlp, points, train, same):
    scripted(monkeypatch, 0.1, 0.432, 0.2, 0.3)
    found = train(mlp(), points, epochs=9, monitors=[EarlyStopping(patience=2)])
    assert found.notes == [
        "epoch 4: early stopping: validated robust accuracy has not risen for 2 epochs (best 43.2% after epoch 2); "
        "training stops"
    ]
    scripted(monkeypatch, 0.1, 0.432)
    same(found.model.state_dict(), train(mlp(), points, epochs=2).model.state_dict())


def test_where_nothing_attacks_clean_accuracy_counts(monkeypatch, mlp, points, train):
    answers = iter([0.5, 0.6, 0.6])
    monkeypatch.setattr(loop_file, "validate", lambda *_: Validation(next(answers), None))
    (note,) = train(mlp(), points, epochs=5, monitors=[EarlyStopping(patience=1)]).notes
    assert note.startswith("epoch 3: early stopping: validated clean accuracy has not risen for 1 epochs (best 60.0%")


@pytest.mark.parametrize("kind", ["stop", "rollback"])
def test_a_run_that_was_stopped_is_finished_and_does_not_go_on(kind, network, images, train, same, tmp_path):
    found = train(network(), images, out=tmp_path / "run", monitors=[Ends(kind)], keep="last")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert [row["epoch"] for row in found.history] == [1, 2]
    assert found.history[-1]["asked"] == 1
    same(load(tmp_path / "run", network(4)).state_dict(), found.model.state_dict())
    assert read_facts(tmp_path / "run")["notes"] == found.notes == [f"epoch 2: {kind} asked for"]
    assert json.loads((tmp_path / "run" / "history.json").read_text()) == found.history
    again = train(network(5), images, out=tmp_path / "run", monitors=[Ends(kind)], keep="last", resume=True)
    assert (again.history, again.notes) == (found.history, found.notes)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    weights = []

    class Keeps(Monitor):
        def after_step(self, moment):
            weights.append(moment.snapshot()["model"])

    train(network(), images, epochs=2, monitors=[Keeps()])
    same(dict(found.model.state_dict()), weights[0 if kind == "rollback" else 3])


def test_the_strongest_answer_counts_and_all_are_noted(network, images, train, same):
    found = train(network(), images, monitors=[Ends("note"), Ends("rollback"), Ends("stop")], keep="last")
    assert found.notes == [f"epoch 2: {kind} asked for" for kind in ("note", "rollback", "stop")]
    alone = train(network(), images, monitors=[Ends("rollback")], keep="last")
    same(found.model.state_dict(), alone.model.state_dict())


def test_a_way_back_needs_a_place():
    with pytest.raises(ValueError, match="needs a snapshot"):
        Action("rollback", "back")


@pytest.mark.parametrize("step", [1, 2])
def test_a_signal_at_the_moment_of_stopping_loses_nothing(step, network, images, train, stop_at, same, tmp_path):
    whole = train(network(), images, out=tmp_path / "whole", monitors=[Ends(step=2)])
    with pytest.raises(Interrupted):
        train(network(), images, out=tmp_path / "run", monitors=[Ends(step=2)], progress=stop_at(step))
    found = train(network(3), images, out=tmp_path / "run", monitors=[Ends(step=2)], resume=True)
    same(found.model.state_dict(), whole.model.state_dict())
    assert (found.history, found.notes) == (whole.history, whole.notes)


def test_monitors_are_settings_of_the_run(network, images, train, tmp_path):
    train(network(), images, out=tmp_path / "run", monitors=[EarlyStopping(patience=5)])
    with pytest.raises(UserError, match="holds a run with monitors"):
        train(network(), images, out=tmp_path / "run", monitors=[EarlyStopping(patience=6)], resume=True)


def test_what_is_no_monitor_is_refused(network, images, train):
    with pytest.raises(UserError, match=r"monitors must be a list of monitors; got 'early-stopping'"):
        train(network(), images, monitors=["early-stopping"])
    with pytest.raises(UserError, match="patience must be a whole number of 1 or more; got 0"):
        EarlyStopping(patience=0)


def test_both_are_known_by_name():
    assert {"catastrophic-overfitting", "early-stopping"} <= set(names())


def test_a_jobs_threat_is_that_of_monitors_that_leave_it_alone():
    free = Threat(norm="l2", eps=0.5, box=None)
    settings = Training(monitors=[CatastrophicOverfitting(), CatastrophicOverfitting(threat=Threat(eps=0.1))])
    of_the_defence, own = resolve_threats(settings, free).monitors
    assert of_the_defence.threat is None
    assert own.threat == Threat(eps=0.1, box=None)


CONFIG = """
data: moons
data_args: {samples: 120, test: 20}
model: mlp
epochs: 4
optimiser: {lr: 0.000001}
defence: at
average: {class_path: SWA, init_args: {start: 0.25}}
monitors:
- class_path: buttress.training.monitors.EarlyStopping
  init_args: {patience: 2}
"""


def test_a_file_of_options_names_monitors_and_the_user_is_told(tmp_path, capsys):
    (tmp_path / "job.yaml").write_text(CONFIG)
    assert main(["train", str(tmp_path / "run"), "--config", str(tmp_path / "job.yaml")]) == 0
    notes = read_facts(tmp_path / "run")["notes"]
    assert notes
    assert notes[0] in capsys.readouterr().out.splitlines()
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["average"] == {"class": "buttress.SWA", "start": 0.25}
    assert settings["monitors"][0]["patience"] == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--average SWA --average.start 7", "the average's start must be a number in [0, 1]; got 7.0"),
        ("--average 7", "the moving average's decay must be a number in (0, 1); got 7.0"),
        (
            "--average often",
            "there is no average 'often' of the weights; known: ema, swa, fawa, or a number, the decay of an EMA",
        ),
    ],
)
def test_an_average_that_means_nothing_is_one_line(words, line, tmp_path, capsys):
    assert main(["train", str(tmp_path / "run"), "--data", "moons", "--model", "mlp", *words.split()]) == 2
    assert capsys.readouterr().err == f"buttress: {line}\n"


def test_the_defence_is_watched_by_its_own_threat(network, images, train):
    """Two trainings that differ in nothing else: the budget of the attack shows in what is measured."""
    found = []
    for eps in (0.0, 0.3):
        monitor = CatastrophicOverfitting(threat=Threat(eps=eps))
        found.append(train(network(), images, monitors=[monitor], epochs=1).history[0]["train_robust"])
    own = train(network(), images, AdversarialTraining(), monitors=[CatastrophicOverfitting()], epochs=1)
    assert found[0] > found[1]
    assert found[0] >= own.history[0]["train_robust"] >= found[1]
