"""Training a network: one call."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from buttress.ambient_state import in_usual_state
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Defence
from buttress.defences.base.length import check_length
from buttress.defences.standard import Standard
from buttress.engine.fabric import first_answers, start_fabric
from buttress.engine.machine import placed
from buttress.errors import UserError
from buttress.output_place import claims
from buttress.random import derive, own_draws
from buttress.tasks import check_task, task_facts
from buttress.training.config import TrainingConfig, training_config
from buttress.training.cost import passes, read_cost
from buttress.training.loggers import LOGGERS
from buttress.training.loop import Loop, Progress
from buttress.training.monitoring import check_monitors
from buttress.training.run_folder import open_run, release_run, write_run
from buttress.training.run_settings import run_settings
from buttress.training.signals import record_signals, stop_at_signal
from buttress.training.token_inputs import check_for_tokens, embedded_data


@dataclass(frozen=True)
class Trained:
    """A trained network and how it came about.

    Attributes:
        model: the module handed to `fit`, with the kept weights, in eval mode.
        history: one row of figures per epoch.
        best_epoch: the epoch (from 1) whose weights ranked highest on the validation split.
        notes: what monitors reported, a sentence each.
    """

    model: nn.Module
    history: list[dict[str, float]]
    best_epoch: int
    notes: list[str] = field(default_factory=list)


@claims("out")
@in_usual_state
def fit(
    model: nn.Module,
    data: Dataset,
    defence: Defence | None = None,
    config: TrainingConfig | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Trained:
    """Train ``model`` on ``data.train`` by ``defence``; the best weights by robust accuracy on ``data.val`` are kept.

    The same seed on the same machine gives the same bits, also when a run is interrupted (even killed) and resumed.
    The global random state is left as it was. Nothing is written unless ``out`` is given.

    A network of tokens is trained inside `models.FromEmbedding`, on data whose inputs are the tokens, (N, T) whole
    numbers: what attacks move are the values of its embedding, which is trained as well (``token_inputs.py``).

    Args:
        model: trained in place.
        data: train and val are used, test is not looked at.
        defence: the training method; standard training unless given.
        config: how to train.
        seed: of data order, augmentation, attacks and dropout. Initialisation is the model's: ``models.create(seed=)``.
        out: a folder for weights, logs and checkpoints; it must be new or empty unless ``resume``.
        resume: go on with the run in ``out``; where there is none yet, start it.
        facts: plain data about the run, kept beside the model.
        progress: called after every step with the share that is done and the latest figures.
        settings: of the config, one by one, such as ``epochs=5``; they come before those of ``config``.

    Raises:
        UserError: for data that are no `Dataset`, settings that mean nothing, a loss that is not finite, a folder that
            holds something else.
        Interrupted: after SIGTERM or SIGINT, with the checkpoint saved; while the method prepares, at once, the
            model's weights being as far as it had brought them: a run that goes on prepares anew.
    """
    config = training_config(config, settings, inspect.signature(fit).parameters)
    if not isinstance(data, Dataset):
        raise UserError(
            f"training takes a Dataset, which has splits and ids of its own; got a {type(data).__name__}: make one, "
            "data.from_arrays(name, (x, y), (x_test, y_test), classes=..., box=..., provenance=...)"
        )
    for part in ("train", "val"):
        if not len(getattr(data, part)):  # the test split is not looked at
            raise UserError(f"training needs {part} inputs; {data.name} has none: give train and test")
    if resume and out is None:
        raise UserError("resuming needs the run's output folder; got none")
    if out is None and (elsewhere := [name for name in config.loggers if LOGGERS[name].at_once]):
        raise UserError(f"the logger {elsewhere[0]} records a run, which has a folder: give out=, or leave it out")
    defence = defence or Standard()
    defence.for_task(config.task)
    check_length(defence, config.epochs, defaults=False)
    check_task(config.validate_with, config.task)
    check_monitors(config.monitors, defence)
    folder = None if out is None else Path(out)
    recorded = run_settings(model, data, defence, config, seed)
    data = embedded_data(model, data)
    check_for_tokens(defence, data)
    fabric = start_fabric(config, precision=config.train_precision, strategy=config.strategy)
    own = folder if fabric.is_global_zero else None  # for the process that writes
    claimed = folder is not None and first_answers(fabric, partial(open_run, folder, recorded, resume, fabric.device))
    placed(model, fabric.device)  # what the method prepares is made where the network is
    attack = config.validation_attack(defence)  # in the threat as it is before the method prepares
    try:
        with own_draws(derive(seed, "prepare"), {fabric.device}), record_signals() as signals:
            start, inputs = time.monotonic(), len(data.train)
            data = stop_at_signal(signals, partial(defence.prepare, model, data, seed))
            preparing = time.monotonic() - start
            loop = Loop(fabric, model, data, defence, config, attack, seed)
            loop.run(folder, resume, progress, signals)
    except UserError:
        if claimed and own is not None:
            release_run(own)
        raise
    model.load_state_dict(loop.best if config.keep == "best" else loop.averaging.weights())
    model.eval()
    with own_draws(derive(seed, "finish"), {fabric.device}):
        defence.finish(model, data, seed)
    if own is not None:
        about = {"data": data.name, "classes": list(data.classes), "seed": seed, "best_epoch": loop.best_epoch}
        about |= task_facts(config.task)
        about |= {"notes": loop.watch.notes, **(facts or {})}
        _keep_cost(own, loop, preparing, inputs)
        write_run(own, model, loop.averaging.weights(), about, loop.history)
        defence.save(own)
    fabric.barrier()  # nobody leaves before all is written
    return Trained(model, loop.history, loop.best_epoch, loop.watch.notes)


def _keep_cost(folder: Path, loop: Loop, preparing: float, inputs: int) -> None:
    """Write what the run took; ``inputs`` were given, while a method may train on fewer, which it made or chose."""
    if "passes" in read_cost(folder):  # a finished run that was asked to go on took no more
        return
    size, epochs = len(loop.batches.y), loop.index / loop.batches.per_epoch
    spent = passes(loop.step_loss.defence, epochs * size / inputs)
    loop.clock.write(inputs=size, epochs=epochs, preparing=round(preparing, 3), **spent)
