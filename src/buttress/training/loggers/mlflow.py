"""MLflow: a run in the tracking store."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from buttress.training.loggers.base import Logger, Run

_OTHER = re.compile(r"[^\w\-. /:]")  # what a name in MLflow may not hold
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


class MLflow(Logger):
    """A run of MLflow, in the store and the experiment that its own variables name.

    These are ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and ``MLFLOW_EXPERIMENT_ID``. The caller's own active
    run of MLflow is left alone. A run that goes on is the same run there; one that was interrupted is "KILLED" until
    then. Signs that MLflow has no place for in a name, as in ``relu#1``, become dashes.
    """

    package = "mlflow"
    install = "'buttress[mlflow]'"

    def __init__(self, run: Run) -> None:
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient()
        self._known: set[int] = set()  # steps whose figures are there
        with _impatient():
            identity = run.identity("mlflow")
            if identity is None:
                self._run = self._begin(run)
            else:
                self._run = identity
                self._client.update_run(identity, status="RUNNING")
                self._known = {point.step for point in self._client.get_metric_history(identity, "epoch")}

    def _begin(self, run: Run) -> str:
        """A new run with the training's settings; what MLflow calls it."""
        from mlflow.entities import Param

        identity = str(self._client.create_run(self._experiment(), run_name=run.name).info.run_id)
        run.remember("mlflow", identity)
        settings = [Param(_name(key), str(value)) for key, value in _flat(run.settings()).items()]
        for start in range(0, len(settings), 100):  # as many as MLflow takes in one call
            self._client.log_batch(identity, params=settings[start : start + 100])
        return identity

    def _experiment(self) -> str:
        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if name is None:
            return "0"  # the default one, which every store has
        known = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if known is None else known.experiment_id)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """One metric for each figure."""
        if step in self._known:  # MLflow would keep both
            return
        now = int(1000 * time.time())
        metrics = [self._metric(_name(name), value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        """The run is "FINISHED", or "KILLED"."""
        self._client.set_terminated(self._run, status="FINISHED" if finished else "KILLED")


@contextmanager
def _impatient() -> Iterator[None]:
    """A server that is not there is told within seconds, before the first step; MLflow tries for four minutes."""
    given = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "2")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_RETRIES]


def _name(text: str) -> str:
    return _OTHER.sub("-", text)


def _flat(tree: Any, key: str = "") -> dict[str, Any]:
    """Plain data without mappings inside, by the keys that lead there."""
    if not isinstance(tree, Mapping):
        return {key: tree}
    parts = (_flat(part, f"{key}.{name}" if key else str(name)) for name, part in tree.items())
    return {name: value for part in parts for name, value in part.items()}
