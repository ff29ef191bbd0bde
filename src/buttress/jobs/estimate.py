"""How long a job will take, from one timed step or batch."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.data.dataset import Dataset, Split
from buttress.defences.base.defence import Defence
from buttress.jobs.settings import Training
from buttress.tasks import Task
from buttress.training.batches import Batches
from buttress.training.fit import fit


class _EnoughError(Exception):
    """The second step has been timed."""


class _Watch:
    """Times the second step of a training, and ends it there."""

    def __init__(self) -> None:
        self.done, self.last, self.seconds = 0.0, 0.0, 0.0

    def __call__(self, done: float, figures: Mapping[str, float]) -> None:
        now = time.perf_counter()
        if done > self.done > 0:
            self.seconds = now - self.last
            raise _EnoughError
        self.done, self.last = done, now


def estimate_training(model: nn.Module, dataset: Dataset, defence: Defence, training: Training) -> str:
    """A sentence: steps, seconds a step, minutes in all; from the second step of a training that ends there.

    It works on copies. A method that first trains something else is not tried: that alone can take hours.
    """
    if defence.preparation:
        return f"not estimated, since the method first {defence.preparation}"
    # One step is no estimate, and processes of more devices are the real job's to start.
    epochs = 2 if training.epochs == 1 else training.epochs
    trial, watch = replace(training, epochs=epochs, devices=1), _Watch()
    with contextlib.suppress(_EnoughError):
        fit(copy.deepcopy(model), dataset, copy.deepcopy(defence), trial, progress=watch)
    if not watch.seconds:
        return "not estimated, since the training ends before its second step"
    steps = Batches(dataset, training.batch_size, 0, torch.device("cpu")).per_epoch * training.epochs
    one = " on one device" if training.devices > 1 else ""
    detail = f"{steps} steps of {watch.seconds:.3g} s{one}, validation not counted"
    return f"about {_duration(steps * watch.seconds)}: {detail}"


def estimate_attacks(
    model: nn.Module, split: Split, attacks: list[Perturbation], batch_size: int, task: Task = tasks.classification
) -> str:
    """A sentence: the time of all attacks on all inputs if every input resists; from one batch of each."""
    x, y, ids = split.take(torch.arange(min(batch_size, len(split))))
    total = 0.0
    for attack in attacks:
        start = time.perf_counter()
        attack(model, x, y, task=task, ids=ids, search="full")
        total += (time.perf_counter() - start) * len(split) / len(x)
    return (
        f"at most about {_duration(total)} for {len(attacks)} attacks on {len(split)} inputs, if all are robust; "
        "layers and other audits not counted"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
