"""One config for `fit`, the loop and the command line: settings by name, one by one or together."""

import json
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.jobs.settings import Training
from buttress.training import Optimiser, Schedule, TrainingConfig, fit

SHORT = TrainingConfig(epochs=2, batch_size=12, optimiser=Optimiser(lr=0.01), validate_with="none")


def test_settings_one_by_one_are_those_of_a_config(mlp, points, same):
    together = fit(mlp(), points, Standard(), SHORT, seed=3)
    single = {f.name: getattr(SHORT, f.name) for f in fields(SHORT)}
    one_by_one = fit(mlp(), points, Standard(), seed=3, **single)
    same(one_by_one.model.state_dict(), together.model.state_dict())
    assert one_by_one.history == together.history


def test_settings_come_before_those_of_the_config(mlp, points):
    assert len(fit(mlp(), points, config=SHORT).history) == 2
    assert len(fit(mlp(), points, config=SHORT, epochs=1).history) == 1
    assert SHORT.epochs == 2


def test_the_short_name_of_the_precision(mlp, points, tmp_path):
    fit(mlp().double(), points, config=SHORT, precision="64-true", epochs=1, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["precision"] == "64-true"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"epoch": 5}, "fit has no setting 'epoch'; did you mean 'epochs'?"),
        ({"optimizer": Optimiser()}, "fit has no setting 'optimizer'; did you mean 'optimiser'?"),
        ({"defense": Standard()}, "fit has no setting 'defense'; did you mean 'defence'?"),
        ({"config": 5}, "config must be a TrainingConfig; got 5: give settings by name, as in epochs=5"),
        ({"optimiser": "sgd"}, "optimiser must be made by Optimiser(name=...); got 'sgd'"),
        ({"schedule": "cosine"}, "schedule must be made by Schedule(name=...); got 'cosine'"),
        ({"monitors": "early-stopping"}, "monitors must be a list of monitors; got 'early-stopping'"),
    ],
)
def test_what_is_no_setting_is_told(settings, line, mlp, points):
    with pytest.raises(UserError) as caught:
        fit(mlp(), points, **settings)
    assert str(caught.value) == line


def test_a_config_is_checked_when_it_is_made_and_stays_as_it_is():
    with pytest.raises(UserError, match="epochs must be a whole number of 1 or more; got 0"):
        replace(SHORT, epochs=0)
    with pytest.raises(FrozenInstanceError):
        SHORT.epochs = 3


def test_a_jobs_settings_are_the_config_with_two_other_defaults():
    assert {f.name: getattr(Training(), f.name) for f in fields(Training)} == {
        **{f.name: getattr(TrainingConfig(), f.name) for f in fields(TrainingConfig)},
        "epochs": 20,
        "schedule": Schedule(name="cosine"),
    }


def test_tensorboard_is_imported_only_where_a_run_writes_its_logs(mlp, points, monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    fit(mlp(), points, config=SHORT)
    fit(mlp(), points, config=SHORT, out=tmp_path / "quiet", loggers=[])
    assert caplog.messages == []
    fit(mlp(), points, config=SHORT, out=tmp_path / "run")
    (line,) = caplog.messages
    assert line.startswith("the logger tensorboard failed; the training goes on")
