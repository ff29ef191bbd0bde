"""A run that was stopped and resumed is, to the last bit, the run that was not."""

import csv
import os
import pickle
import signal
from typing import ClassVar

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from buttress.defences import Defence, Loss
from buttress.defences.base.pretraining import descend
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.trades import TRADES
from buttress.threat import Threat
from buttress.training import FAWA, SWA, Interrupted, Optimiser, Schedule
from buttress.training.monitors import CatastrophicOverfitting, EarlyStopping
from buttress.training.signals import record_signals, stop_at_signal

SGD = Optimiser(name="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)
STEPS = 9  # three epochs of three
COLLAPSE = CatastrophicOverfitting(every=2, inputs=20, then="rollback", fall=0.99, drop=0.99, shrink=0.01)


class Headed(Defence):
    """Owns a module with weights and a buffer that the training moves."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(2)
            self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def loss(self, model, batch, context):
        return Loss(
            nn.functional.cross_entropy(
                self.head(context.clean(batch.x + 0.01 * context.random.normal((1, 6, 6)))), batch.y
            )
        )


SETUPS = {
    "sgd": {"optimiser": SGD, "schedule": Schedule(name="cyclic"), "clip": 1.0},
    "adam": {"optimiser": Optimiser(lr=0.01), "schedule": Schedule(name="cosine"), "average": 0.9},
    "adamw": {"optimiser": Optimiser(name="adamw", lr=0.01), "schedule": Schedule(name="piecewise"), "average": 0.5},
    "swa": {"optimiser": SGD, "average": SWA(start=0.3), "monitors": [EarlyStopping(patience=2)]},
    "fawa": {"optimiser": SGD, "average": FAWA(start=0.0, threshold=0.0), "monitors": [COLLAPSE]},
}


def make(kind, attack):
    threat = Threat(eps=0.1)
    regularised = LayerRegularised(TRADES(threat, steps=2), layers=["2"], gamma=0.5, warmup=2.0)
    return {"at": None, "headed": Headed(), "regularised": regularised}[kind]


@pytest.mark.representatives(step=[5, 6])
@pytest.mark.parametrize(
    ("kind", "setup"), [("at", "sgd"), ("headed", "adam"), ("regularised", "adamw"), ("at", "swa"), ("at", "fawa")]
)
@pytest.mark.parametrize("step", [1, 5, 6, 9])
def test_stopped_and_resumed_is_as_if_never_stopped(
    step, kind, setup, network, images, attack, train, stop_at, state_of, same, tmp_path
):
    """In the middle of an epoch, after its last step (6) and after the last step of all (9)."""
    whole = train(network(), images, make(kind, attack), out=tmp_path / "whole", **SETUPS[setup])
    with pytest.raises(Interrupted) as stopped:
        train(network(), images, make(kind, attack), out=tmp_path / "run", progress=stop_at(step), **SETUPS[setup])
    assert (stopped.value.step, stopped.value.signal) == (step, signal.SIGTERM)
    other_weights = network(seed=5)
    resumed = train(other_weights, images, make(kind, attack), out=tmp_path / "run", resume=True, **SETUPS[setup])
    same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    for one, other in zip(state_of(tmp_path / "run"), state_of(tmp_path / "whole"), strict=True):
        same(one, other)
    for file in ("model.safetensors", "last.safetensors", "history.json", "model.json", "metrics.csv", "run.json"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_stopped_again_and_again(network, images, train, stop_at, same, tmp_path):
    whole = train(network(), images)
    for step in range(1, STEPS + 1):
        with pytest.raises(Interrupted, match=f"stopped after step {step}$"):
            train(network(), images, out=tmp_path / "run", resume=True, progress=stop_at(1))
    found = train(network(), images, out=tmp_path / "run", resume=True)
    same(found.model.state_dict(), whole.model.state_dict())


def test_resuming_where_there_is_nothing_starts_and_where_all_is_done_changes_nothing(
    network, images, train, same, tmp_path
):
    first = train(network(), images, out=tmp_path / "run", resume=True)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    again = train(network(1), images, out=tmp_path / "run", resume=True)
    same(again.model.state_dict(), first.model.state_dict())
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_an_interrupt_from_the_keyboard_is_noted_too_and_handlers_come_back(network, images, train, stop_at, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Interrupted) as stopped:
        train(network(), images, out=tmp_path / "run", progress=stop_at(2, signal.SIGINT))
    assert stopped.value.signal == signal.SIGINT
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


class Prepared(Headed):
    """Trains the model before the training proper, and is told to stop in the middle of that so many times."""

    signals: ClassVar = []

    def prepare(self, model, data, seed):
        def objective(x, y, ids):
            if len(self.steps) == 4 and self.signals:
                os.kill(os.getpid(), self.signals.pop())
            self.steps.append(len(ids))
            return nn.functional.cross_entropy(model(x), y)

        self.steps = []
        descend(model.parameters(), objective, data.train, epochs=5, seed=seed, batch_size=12)
        return data


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_method_prepares_ends_that_at_once(
    number, network, images, train, same, tmp_path, monkeypatch
):
    whole = train(network(), images, Prepared(), out=tmp_path / "whole")
    monkeypatch.setattr(Prepared, "signals", [number])
    before, defence = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)], Prepared()
    with pytest.raises(Interrupted, match="stopped while preparing") as stopped:
        train(network(), images, defence, out=tmp_path / "run")
    assert (stopped.value.step, stopped.value.signal) == (None, number)
    assert len(defence.steps) == 4  # of 15
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["run.json"]
    resumed = train(network(), images, Prepared(), out=tmp_path / "run", resume=True)
    same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.history == whole.history


def test_a_signal_while_a_resumed_run_prepares_leaves_its_checkpoint(
    network, images, train, stop_at, same, tmp_path, monkeypatch
):
    whole = train(network(), images, Prepared())
    with pytest.raises(Interrupted, match="after step 4"):
        train(network(), images, Prepared(), out=tmp_path / "run", progress=stop_at(4))
    monkeypatch.setattr(Prepared, "signals", [signal.SIGTERM])
    with pytest.raises(Interrupted, match="while preparing"):
        train(network(), images, Prepared(), out=tmp_path / "run", resume=True)
    resumed = train(network(), images, Prepared(), out=tmp_path / "run", resume=True)
    same(resumed.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("step", [None, 7])
def test_an_interruption_comes_over_from_another_process(step):
    """As from the workers of a reproduction; an exception that cannot be read there breaks the whole pool."""
    mine = Interrupted(step, signal.SIGTERM)
    theirs = pickle.loads(pickle.dumps(mine))
    assert (theirs.step, theirs.signal, str(theirs)) == (step, signal.SIGTERM, str(mine))


def test_a_second_signal_disturbs_no_tidying_up_and_a_preparation_that_takes_no_notice_is_not_gone_on_from():
    done = []

    def tidy():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("went on")
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            done.append("tidied")

    def deaf():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            done.append("heard")
        return "made"

    for work, told in ((tidy, "tidied"), (deaf, "heard")):
        with record_signals() as signals, pytest.raises(Interrupted) as stopped:
            stop_at_signal(signals, work)
        assert stopped.value.signal == signal.SIGTERM
        assert done.pop() == told
        assert done == []
    with pytest.raises(Interrupted):  # it came before
        stop_at_signal([signal.SIGTERM], lambda: done.append("begun"))
    assert done == []
    assert stop_at_signal([], lambda: "made") == "made"


def test_figures_have_one_row_an_epoch_after_a_resume(network, images, train, stop_at, tmp_path):
    for step in (4, 2):  # after epoch 1 and one step; at the end of epoch 2
        with pytest.raises(Interrupted):
            train(network(), images, out=tmp_path / "run", resume=True, progress=stop_at(step))
    found = train(network(), images, out=tmp_path / "run", resume=True)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == found.history
    assert [row["epoch"] for row in found.history] == [1.0, 2.0, 3.0]
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == set(found.history[0])
    for name in ("loss", "robust"):
        events = board.Scalars(name)
        assert [e.step for e in events] == [3, 6, 9]
        assert [e.value for e in events] == pytest.approx([row[name] for row in found.history])
