"""How long a job will take, from one timed batch."""

from __future__ import annotations

import copy
import time

import torch
from torch import nn

from buttress.attacks import Perturbation
from buttress.data.base import Dataset, Split
from buttress.defences.base import At, Batch, Defence
from buttress.training.batches import Batches
from buttress.workflows.settings import Training


def estimate_training(model: nn.Module, dataset: Dataset, defence: Defence, training: Training) -> str:
    """A sentence: steps, seconds a step, minutes in all; from one step after a warm-up, on a copy of the model."""
    batches = Batches(dataset, training.batch_size, 0, torch.device("cpu"))
    batch = next(iter(batches.epoch(0)))
    trial = copy.deepcopy(model).train()
    parameters = [p for p in trial.parameters() if p.requires_grad]
    seconds = 0.0
    with torch.random.fork_rng():
        for _ in range(2):
            start = time.perf_counter()
            at = At(trial, Batch(batch.x, batch.y, batch.ids))
            loss = copy.deepcopy(defence).loss(trial, at.batch, at).value
            torch.autograd.grad(loss, parameters, allow_unused=True)
            seconds = time.perf_counter() - start
    steps = batches.per_epoch * training.epochs
    return f"about {_duration(steps * seconds)}: {steps} steps of {seconds:.3g} s, validation not counted"


def estimate_attacks(model: nn.Module, split: Split, attacks: list[Perturbation], batch_size: int) -> str:
    """A sentence: the time of all attacks on all inputs if every input resists; from one batch of each."""
    x, y, ids = split.take(torch.arange(min(batch_size, len(split))))
    total = 0.0
    for attack in attacks:
        start = time.perf_counter()
        attack(model, x, y, ids=ids, search="full")
        total += (time.perf_counter() - start) * len(split) / len(x)
    return (
        f"at most about {_duration(total)} for {len(attacks)} attacks on {len(split)} inputs, if all withstand them; "
        "layers and other audits not counted"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
