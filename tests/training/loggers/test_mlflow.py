"""What MLflow is told, by a fake of the calls that are made; names and steps as MLflow itself has them."""

import os
from collections import namedtuple
from types import SimpleNamespace

import pytest

from buttress.training.loggers.mlflow import MLflow

Metric = namedtuple("Metric", "key value timestamp step")
Param = namedtuple("Param", "key value")


class Store:
    """A tracking store, and its client."""

    def __init__(self):
        self.runs, self.experiments, self.retries = {}, {"Default": "0"}, []

    def __call__(self):
        return self

    def create_run(self, experiment, run_name):
        self.retries.append(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES"))
        number = f"run{len(self.runs)}"
        self.runs[number] = SimpleNamespace(
            experiment=experiment, name=run_name, status="RUNNING", metrics=[], params={}
        )
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def update_run(self, run, status):
        self.runs[run].status = status

    set_terminated = update_run

    def get_metric_history(self, run, key):
        return [metric for metric in self.runs[run].metrics if metric.key == key]

    def log_batch(self, run, metrics=(), params=()):
        assert len(params) <= 100
        self.runs[run].metrics += metrics
        self.runs[run].params |= dict(params)

    def get_experiment_by_name(self, name):
        known = self.experiments.get(name)
        return known and SimpleNamespace(experiment_id=known)

    def create_experiment(self, name):
        self.experiments[name] = str(len(self.experiments))
        return self.experiments[name]


@pytest.fixture
def store(package, monkeypatch):
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    store = Store()
    package("mlflow")
    package("mlflow.entities", Metric=Metric, Param=Param)
    package("mlflow.tracking", MlflowClient=store)
    return store


def test_a_run_has_its_settings_and_figures(store, run):
    logger = MLflow(run)
    logger.write({"epoch": 1.0, "spread of relu#1": 0.5}, 12)
    logger.close(finished=True)
    (recorded,) = store.runs.values()
    assert (recorded.experiment, recorded.name, recorded.status) == ("0", "runs/at", "FINISHED")
    assert recorded.params == {"defence.class": "buttress.PGD", "defence.threat.eps": "0.1", "epochs": "3"}
    assert [(m.key, m.value, m.step) for m in recorded.metrics] == [("epoch", 1.0, 12), ("spread of relu-1", 0.5, 12)]


def test_a_run_that_goes_on_is_the_same_run_without_doubles(store, run):
    logger = MLflow(run)
    logger.write({"epoch": 1.0}, 12)
    logger.close(finished=False)
    assert store.runs["run0"].status == "KILLED"
    again = MLflow(run)
    assert store.runs["run0"].status == "RUNNING"
    again.write({"epoch": 1.0}, 12)  # it was killed before its checkpoint
    again.write({"epoch": 2.0}, 24)
    assert list(store.runs) == ["run0"]
    assert [metric.step for metric in store.runs["run0"].metrics] == [12, 24]


@pytest.mark.parametrize(
    ("variable", "value", "experiment"),
    [
        ("MLFLOW_EXPERIMENT_NAME", "robust", "1"),
        ("MLFLOW_EXPERIMENT_NAME", "Default", "0"),
        ("MLFLOW_EXPERIMENT_ID", "7", "7"),
    ],
)
def test_the_experiment_is_that_of_mlflows_own_variables(variable, value, experiment, store, run, monkeypatch):
    monkeypatch.setenv(variable, value)
    MLflow(run)
    assert store.runs["run0"].experiment == experiment


@pytest.mark.parametrize(("given", "used"), [(None, "2"), ("5", "5")])
def test_a_server_that_is_not_there_is_told_soon_unless_retries_are_given(given, used, store, run, monkeypatch):
    if given is not None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", given)
    MLflow(run)
    assert store.retries == [used]
    assert os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") == given
