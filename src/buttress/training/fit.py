"""Training a network: one call."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from buttress import models
from buttress.attacks import Perturbation
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Defence
from buttress.defences.standard import Standard
from buttress.engine.fingerprint import name_of, plain
from buttress.engine.runner import CraftPrecision
from buttress.errors import UserError
from buttress.random import derive, seed_torch
from buttress.training.averaging import Average, average_of
from buttress.training.cost import passes, read_cost
from buttress.training.loop import Loop, Progress
from buttress.training.monitoring import check_monitors
from buttress.training.monitors.base import Monitor
from buttress.training.optimisation import Optimiser, Schedule
from buttress.training.run_folder import leave_run, open_run, write_run
from buttress.training.signals import obeying, signals_noted
from buttress.training.validation import default_attack

Precision = Literal["32-true", "bf16-mixed", "64-true"]
Keep = Literal["best", "last"]


@dataclass(frozen=True)
class Trained:
    """A trained network and how it came about.

    Attributes:
        model: the module handed to `fit`, with the kept weights, in eval mode.
        history: one row of figures per epoch.
        best_epoch: the epoch (from 1) whose weights ranked highest on the validation split.
        notes: what monitors said, a sentence each.
    """

    model: nn.Module
    history: list[dict[str, float]]
    best_epoch: int
    notes: list[str] = field(default_factory=list)


def describe(defence: Defence) -> dict[str, Any]:
    """A defence as plain data: its class and its settings, wrapped ones included."""
    inside = {k: describe(v) if isinstance(v, Defence) else plain(v) for k, v in defence.settings().items()}
    return {"class": name_of(type(defence)), **inside}


def fit(
    model: nn.Module,
    data: Dataset,
    defence: Defence | None = None,
    *,
    epochs: int = 30,
    batch_size: int = 128,
    seed: int = 0,
    optimiser: Optimiser | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    average: float | Average | None = None,
    monitors: Sequence[Monitor] = (),
    precision: Precision = "32-true",
    search_precision: CraftPrecision | None = None,
    accelerator: str = "cpu",
    devices: int = 1,
    keep: Keep = "best",
    validate_with: Perturbation | Literal["auto", "none"] = "auto",
    validate_on: int = 500,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train ``model`` on ``data.train`` by ``defence``; the best weights by robust accuracy on ``data.val`` are kept.

    The same seed on the same machine gives the same bits, also when a run is interrupted (even killed) and resumed.
    The global random state is left as it was. Nothing is written unless ``out`` is given.

    Args:
        model: trained in place.
        data: train and val are used, test is not looked at.
        defence: the training method; standard training unless given.
        epochs: passes over the training split.
        batch_size: inputs per batch, over all devices.
        seed: of data order, augmentation, attacks and dropout. Initialisation is the model's: ``models.create(seed=)``.
        optimiser: Adam with 1e-3 unless given.
        schedule: of the learning rate; constant unless given.
        clip: largest L2 norm of the gradient.
        average: of the weights, which is then what is validated and kept: `EMA`, `SWA` or `FAWA`; a number is the decay
            of an `EMA`.
        monitors: who watches the training, and may stop it; a run that one has stopped is finished.
        precision: "bf16-mixed" runs passes, crafting included, in bf16 where that is safe.
        search_precision: of crafting alone, see `Runner`; "folded" and "twin" search on a copy of the model whose
            weights are filled again at every step. That of ``precision`` unless given.
        accelerator: of Fabric: "cpu", "cuda", "auto" ...
        devices: processes; with more than one, start them with torchrun.
        keep: which weights the model has in the end.
        validate_with: attack for the robust accuracy; "auto" is PGD-10 in the defence's threat.
        validate_on: stratified share of the validation split that is used.
        out: a folder for weights, logs and checkpoints; it must be new or empty unless ``resume``.
        resume: go on with the run in ``out``; where there is none yet, start it.
        checkpoint_seconds: time between checkpoints inside an epoch; there is one after every epoch anyway.
        facts: plain data about the run, kept beside the model.
        progress: told how far it is, after every step.

    Raises:
        UserError: for settings that mean nothing, a loss that is not finite, a folder that holds something else.
        Interrupted: after SIGTERM or SIGINT, with the checkpoint saved; while the method prepares, at once, the
            model's weights being as far as it had brought them: a run that goes on prepares anew.
    """
    from lightning_fabric import Fabric

    if epochs < 1:
        raise UserError(f"epochs must be 1 or more; got {epochs}")
    if clip is not None and not clip > 0:
        raise UserError(f"clip, the largest norm of the gradient, must be positive; got {clip}")
    if keep not in get_args(Keep):
        raise UserError(f"keep must be one of {', '.join(get_args(Keep))}; got {keep!r}")
    if isinstance(validate_with, str) and validate_with not in ("auto", "none"):
        raise UserError(f"validate_with must be an attack, auto or none; got {validate_with!r}")
    if resume and out is None:
        raise UserError("resuming needs the run's output folder; got none")
    if search_precision not in (None, *get_args(CraftPrecision)):
        raise UserError(
            f"search_precision must be one of {', '.join(get_args(CraftPrecision))}; got {search_precision!r}"
        )
    defence = defence or Standard()
    policy = average_of(average)
    check_monitors(monitors, defence)
    optimiser, schedule = optimiser or Optimiser(), schedule or Schedule()
    folder = None if out is None else Path(out)
    settings = {
        "model": models.spec_of(model) or type(model).__qualname__,
        "data": data.name,
        "inputs": len(data.train),
        "content": hashlib.sha256(repr(plain([data.train.x, data.train.y])).encode()).hexdigest()[:16],
        "defence": describe(defence),
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "optimiser": asdict(optimiser),
        "schedule": asdict(schedule),
        "clip": clip,
        "average": plain(average),
        "precision": precision,
        **({} if search_precision is None else {"search_precision": search_precision}),
        **({"monitors": plain(list(monitors))} if monitors else {}),
        "validate_with": validate_with if isinstance(validate_with, str) else plain(validate_with),
        "validate_on": validate_on,
    }
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # Fabric refuses in all of these
        asked = f"accelerator {accelerator!r}, devices {devices}, precision {precision!r}"
        raise UserError(f"{asked} cannot be had: {' '.join(str(error).split())}") from None
    if devices > 1:
        fabric.launch()
    claimed = False
    if folder is not None and fabric.is_global_zero:
        claimed = open_run(folder, settings, resume)
    attack = default_attack(defence) if validate_with == "auto" else None if validate_with == "none" else validate_with
    assert not isinstance(attack, str)
    try:
        with torch.random.fork_rng(), signals_noted() as came:
            seed_torch(derive(seed, "prepare"))
            began, given = time.monotonic(), len(data.train)
            data = obeying(came, partial(defence.prepare, model, data, seed))
            preparing = time.monotonic() - began
            loop = Loop(
                fabric,
                model,
                data,
                defence,
                optimiser,
                schedule,
                clip=clip,
                average=policy,
                monitors=monitors,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
                attack=attack,
                validate_on=validate_on,
                search_precision=search_precision,
            )
            loop.run(folder, resume, checkpoint_seconds, progress, came)
    except UserError:
        if claimed and folder is not None:
            leave_run(folder)
        raise
    model.load_state_dict(loop.best if keep == "best" else loop.averaging.weights())
    model.eval()
    with torch.random.fork_rng():
        seed_torch(derive(seed, "finish"))
        defence.finish(model, data, seed)
    if folder is not None and fabric.is_global_zero:
        known = {"data": data.name, "classes": list(data.classes), "seed": seed, "best_epoch": loop.best_epoch}
        known["notes"] = loop.watch.notes
        if "passes" not in read_cost(folder):  # a finished run that was asked to go on took no more
            done = loop.index / loop.batches.per_epoch
            about = {"inputs": len(loop.batches.y), "epochs": done, "preparing": round(preparing, 3)}
            # For each input that was given: a method may train on fewer, which it has made or chosen.
            loop.clock.keep(**about, **passes(defence, done * len(loop.batches.y) / given))
        write_run(folder, model, loop.averaging.weights(), {**known, **(facts or {})}, loop.history)
        defence.save(folder)
    return Trained(model, loop.history, loop.best_epoch, loop.watch.notes)
