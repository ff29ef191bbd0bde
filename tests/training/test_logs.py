"""A run's figures for people and by loggers."""

import logging

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from buttress.errors import UserError
from buttress.training import TrainingConfig
from buttress.training.loggers import LOGGERS, Logger
from buttress.training.logs import Logs


class Recorder(Logger):
    """A logger that keeps what it is told, and fails where it is asked to."""

    package = "json"
    install = "nothing"
    fails = ""

    def __init__(self, run):
        self.told = [("made", run.step)]
        Recorder.last = self
        self._fail("made")

    def _fail(self, where):
        if self.fails == where:
            raise RuntimeError("no route\nto host")

    def write(self, figures, step):
        self._fail("write")
        self.told.append((dict(figures), step))

    def close(self, *, finished):
        self._fail("close")
        self.told.append(("closed", finished))


@pytest.fixture
def recorder(monkeypatch):
    """The recorder in the place of MLflow."""
    monkeypatch.setitem(LOGGERS, "mlflow", Recorder)
    monkeypatch.setattr(Recorder, "fails", "")
    return Recorder


def test_a_run_has_one_event_file_whatever_its_epochs(tmp_path):
    history = []
    with Logs(tmp_path, 0, ["tensorboard"]) as logs:
        for epoch in range(1, 4):
            history.append({"epoch": float(epoch), "loss": 1 / epoch})
            logs.write(history, 10 * epoch)
            # A run that is killed now has shown everything so far.
            board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
            assert [event.step for event in board.Scalars("loss")] == [10 * e for e in range(1, epoch + 1)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "epoch,loss"


def test_nothing_is_written_without_a_folder_or_before_the_first_row(tmp_path, recorder):
    with Logs(None, 0, ["tensorboard", "mlflow"]) as logs:
        logs.write([{"epoch": 1.0}], 1)
    assert not hasattr(recorder, "last")
    with Logs(tmp_path, 0, ["tensorboard"]):
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_logger_gets_what_tensorboard_gets(train, network, images, tmp_path, recorder):
    found = train(network(), images, out=tmp_path / "run", loggers=["tensorboard", "mlflow"])
    rows = [(row, 3 * epoch) for epoch, row in enumerate(found.history, start=1)]
    assert recorder.last.told == [("made", 0), *rows, ("closed", True)]
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == set(found.history[0])


@pytest.mark.parametrize("moment", ["made", "write", "close"])
def test_a_logger_that_fails_costs_one_line_and_no_training(
    moment, train, network, images, tmp_path, recorder, monkeypatch, caplog
):
    monkeypatch.setattr(recorder, "fails", moment)
    with caplog.at_level(logging.WARNING):
        found = train(network(), images, out=tmp_path / "run", loggers=["tensorboard", "mlflow"])
    assert len(found.history) == 3
    line = "the logger mlflow failed; the training goes on, with its figures in metrics.csv: no route to host"
    assert [record.getMessage() for record in caplog.records] == [line]
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert len(board.Scalars("loss")) == 3


def test_a_logger_knows_an_interrupted_run_from_a_finished_one(tmp_path, recorder):
    with pytest.raises(KeyboardInterrupt), Logs(tmp_path, 7, ["mlflow"]):
        raise KeyboardInterrupt
    assert recorder.last.told == [("made", 7), ("closed", False)]


def test_loggers_do_not_change_the_training(train, network, images, tmp_path, recorder, same):
    recorded = train(network(), images, out=tmp_path / "one", loggers=["mlflow"])
    alone = train(network(), images, out=tmp_path / "other", loggers=[])
    same(recorded.model.state_dict(), alone.model.state_dict())
    assert not (tmp_path / "other" / "tensorboard").exists()


def test_a_logger_without_a_run_to_record_is_refused(train, network, images, recorder):
    with pytest.raises(UserError, match="the logger mlflow records a run, which has a folder: give out="):
        train(network(), images, loggers=["mlflow"])


@pytest.mark.parametrize(
    ("loggers", "line"),
    [
        ("mlflow", "loggers must be a list of names, as in ['tensorboard', 'mlflow']; got 'mlflow'"),
        (["comet"], "loggers must be one of tensorboard, wandb, mlflow; got 'comet'"),
    ],
)
def test_what_is_no_logger_is_told(loggers, line):
    with pytest.raises(UserError) as caught:
        TrainingConfig(loggers=loggers)
    assert str(caught.value) == line


@pytest.mark.parametrize("name", sorted(LOGGERS))
def test_a_logger_that_is_not_installed_is_told_with_the_command(name, monkeypatch):
    kind = LOGGERS[name]
    monkeypatch.setattr(kind, "package", "a_package_that_is_not_there")
    with pytest.raises(UserError) as caught:
        TrainingConfig(loggers=[name])
    assert str(caught.value) == (
        f"the logger {name} needs a_package_that_is_not_there, which is not installed: pip install {kind.install}"
    )
