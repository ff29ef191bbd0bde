"""What a run's folder records of its settings, so that a run that goes on is the same run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from torch import nn

from buttress import models
from buttress.data.dataset import Dataset, Split
from buttress.defences.base.defence import Defence
from buttress.engine.fingerprint import name_of, plain
from buttress.tasks import task_facts
from buttress.training.config import TrainingConfig
from buttress.user_modules import short


def describe(defence: Defence) -> dict[str, Any]:
    """A defence as plain data: its class and its settings, wrapped ones included."""
    inside = {k: describe(v) if isinstance(v, Defence) else plain(v) for k, v in defence.settings().items()}
    return {"class": name_of(type(defence)), **inside}


def content(split: Split) -> str:
    """What tells training inputs and their truth from others: a digest of `Split.sample`."""
    return hashlib.sha256(repr(plain([split.sample.x, split.y])).encode()).hexdigest()[:16]


def run_settings(
    model: nn.Module, data: Dataset, defence: Defence, config: TrainingConfig, seed: int
) -> dict[str, Any]:
    """Everything that a training's result depends on, as plain data.

    Settings that runs made before do not record are here only where they are set, so that such runs go on.
    """
    spec = models.spec_of(model)
    optimiser, schedule, attack = asdict(config.optimiser), asdict(config.schedule), config.validate_with
    return {
        "model": type(model).__qualname__ if spec is None else {**spec, "name": short(spec["name"])},
        "data": data.name,
        "inputs": len(data.train),
        "content": content(data.train),
        "defence": describe(defence),
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": seed,
        "optimiser": {name: value for name, value in optimiser.items() if name != "args" or value},
        "schedule": {name: value for name, value in schedule.items() if name not in ("args", "per") or value},
        "clip": config.clip,
        "average": plain(config.average),
        "precision": config.train_precision,
        **({} if config.search_precision is None else {"search_precision": config.search_precision}),
        **({"monitors": plain(list(config.monitors))} if config.monitors else {}),
        **task_facts(config.task),
        "validate_with": attack if isinstance(attack, str) else plain(attack),
        "validate_on": config.validate_on,
    }
