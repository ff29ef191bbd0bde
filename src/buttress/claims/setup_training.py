"""The networks of claims, trained as their setups say."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from buttress import registry
from buttress.config.reading import build
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Defence
from buttress.engine.machine import Accelerator
from buttress.jobs.settings import Network, Source, Training
from buttress.jobs.threat_resolution import job_threat
from buttress.training import Trained, fit


def load(tree: Mapping[str, Any], data_dir: str | None, seed: int) -> Dataset:
    """The data of a setup.

    Args:
        tree: the setup's ``source``.
        data_dir: where original data files are, for data sets that have such.
        seed: of what is drawn.
    """
    source = build(Source, tree)
    parameters = inspect.signature(registry.dataset.get(source.data or "fashion-mini")).parameters
    if data_dir and "data_dir" in parameters:
        source = replace(source, data_dir=Path(data_dir))
    return source.load(seed)[0]


def train(
    setup: Mapping[str, Any], defence: Any, dataset: Dataset, seed: int, accelerator: Accelerator = "auto"
) -> tuple[Trained, float]:
    """A network and the seconds that its training took.

    Args:
        setup: ``architecture`` and ``training``.
        defence: short form.
        dataset: what it is trained on.
        seed: of its initial weights and of all that training draws.
        accelerator: that it is trained on.
    """
    resolve = job_threat(None, dataset).resolve  # as the job train does where no threat is given
    method: Defence = resolve(build(Defence, defence))
    training = resolve(build(Training, setup.get("training", {})))
    model = build(Network, setup["architecture"]).create(dataset, seed)
    start = time.perf_counter()
    # Where the last weights are kept no epoch needs to be judged by an attack.
    training = replace(training, accelerator=accelerator, validate_with="none" if training.keep == "last" else "auto")
    result = fit(model, dataset, method, training, seed=seed)
    return result, time.perf_counter() - start
