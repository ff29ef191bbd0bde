"""How long a job will take, from one timed step or a few timed passes."""

from __future__ import annotations

import contextlib
import copy
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.audits import Audit, subject
from buttress.data.dataset import Dataset, Split
from buttress.defences.base.defence import Defence
from buttress.engine.pass_count import PassCount
from buttress.jobs.audit_times import AuditTimes
from buttress.jobs.duration import duration
from buttress.jobs.pace import Pace
from buttress.jobs.settings import Training
from buttress.started import started
from buttress.tasks import Task
from buttress.tensor_forms import copied_network
from buttress.training.batches import Batches
from buttress.training.fit import fit

_TRIED = 3.0  # seconds of a batch's passes, from which on no step is tried


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


@dataclass(frozen=True)
class StepTime:
    """What a step of a training takes.

    Attributes:
        seconds: of a step; None where it is not known.
        text: how that is known, or why it is not.
    """

    seconds: float | None
    text: str

    def of_all(self, steps: int) -> str:
        """A sentence on a training of so many steps."""
        return self.text if self.seconds is None else f"about {duration(steps * self.seconds)}: {steps} {self.text}"


def estimate_training(model: nn.Module, dataset: Dataset, defence: Defence, training: Training) -> str:
    """A sentence: steps, seconds a step, minutes in all."""
    return step_time(model, dataset, defence, training).of_all(count_steps(dataset, training))


def step_time(model: nn.Module, dataset: Dataset, defence: Defence, training: Training) -> StepTime:
    """The time of a training's step: of its second one, in a training that ends there.

    It works on copies. A method that first trains something else is not tried: that alone can take hours. One whose
    passes for a batch take long, by a few that are timed and multiplied, is not tried either.
    """
    if defence.preparation:
        return StepTime(None, f"not estimated, since the method first {defence.preparation}")
    passing = _passing_seconds(model, dataset, defence.attack, training)
    if passing > _TRIED:
        return StepTime(passing, f"steps whose passes take up to {passing:.3g} s, the rest not counted")
    # One step is no estimate, and processes of more devices are the real job's to start.
    epochs = 2 if training.epochs == 1 else training.epochs
    trial, watch = replace(training, epochs=epochs, devices=1), _Watch()
    with contextlib.suppress(_EnoughError):
        fit(copied_network(model), dataset, copy.deepcopy(defence), trial, progress=watch)
    if not watch.seconds:
        return StepTime(None, "not estimated, since the training ends before its second step")
    several = started() is not None or training.devices not in (None, 1)
    one = " on one device" if several else ""
    return StepTime(watch.seconds, f"steps of {watch.seconds:.3g} s{one}, validation not counted")


def count_steps(dataset: Dataset, training: Training) -> int:
    """Steps of a whole training."""
    return Batches(dataset, training.batch_size, 0, torch.device("cpu")).per_epoch * training.epochs


def _passing_seconds(model: nn.Module, dataset: Dataset, attack: Perturbation | None, training: Training) -> float:
    """Seconds of a batch's passes where training runs, at most: of an attack that states them, and one more."""
    x, y, _ = dataset.train.take(torch.arange(min(training.batch_size, len(dataset.train))))
    device = training.device
    pace = Pace.of(copied_network(model).to(device), x.to(device), y.to(device), training.task)
    crafting = None if attack is None else attack.most_passes(pace.outputs)
    return pace.seconds(PassCount(1, 1) + (crafting or PassCount()))


def estimate_attacks(
    model: nn.Module, split: Split, attacks: Sequence[Perturbation], batch_size: int, task: Task = tasks.classification
) -> str:
    """A sentence: the time of all attacks on all inputs if every input resists.

    A few passes are timed and multiplied by the most that each attack makes (`Perturbation.most_passes`); those over
    another network, such as a surrogate, count as if over this one. What an attack computes between passes is not
    known without running it, and takes longer than small networks do (Square's squares): the sentence says so.
    """
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    x, y, _ = split.take(torch.arange(min(batch_size, len(split))))
    pace = Pace.of(model, x.to(device), y.to(device), task)
    stated = [(attack, attack.most_passes(pace.outputs)) for attack in attacks]
    passes = sum((each for _, each in stated if each is not None), start=PassCount())
    silent = dict.fromkeys(attack.label() for attack, each in stated if each is None)
    total = pace.seconds(passes) * len(split) / len(x)
    times = Counter(attack.label() for attack in attacks)
    count = f"{len(attacks)} attack{'s' * (len(attacks) != 1)}"
    if len(attacks) > len(times):  # as where each budget is one
        count += f" ({', '.join(f'{label} {n} times' for label, n in times.items())})"
    text = (
        f"at most about {duration(total)} of passes for {count} on {len(split)} inputs, if all are robust: "
        f"{passes.forwards:,} forward and {passes.backwards:,} backward passes an input, and what attacks compute "
        "between passes not counted"
    )
    if silent:
        text += f"; {', '.join(silent)} not counted, which does not state its passes (search_passes)"
    return text


def estimate_audits(
    model: nn.Module, split: Split, questions: Sequence[Audit], batch_size: int, task: Task = tasks.classification
) -> str:
    """A sentence: the time of the audits one by one, if every input resists, and those whose time is not known."""
    return AuditTimes(subject(model, split, task=task, batch_size=batch_size)).text(questions)
