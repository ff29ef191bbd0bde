"""Evaluation of any number of inputs: group by group, in memory that does not grow, in several processes, resumable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.audits.base.attack_label import describe
from buttress.audits.base.evaluation import processes
from buttress.audits.base.evaluation.groups import (
    GROUP,
    Data,
    Given,
    Group,
    Work,
    crafted,
    files_in,
    grouped,
    read_group,
)
from buttress.audits.base.evaluation.manifest import leave_folder, open_folder
from buttress.audits.base.statistics import interval
from buttress.data.dataset import Split
from buttress.engine.call_checks import check_inputs
from buttress.engine.digests import digest
from buttress.engine.fingerprint import plain
from buttress.engine.oracle import Oracle, Search, Stage
from buttress.engine.precision_choice import choose_precision
from buttress.engine.preserved_model import Model, preserved
from buttress.engine.runner import Precision, Runner
from buttress.errors import UserError
from buttress.tasks import Task
from buttress.validation import whole


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation: sums over all inputs, earlier runs and other processes included.

    Attributes:
        inputs: how many there were.
        success: how many the attack beats, those that the network gets wrong unperturbed among them.
        wrong: how many it gets wrong unperturbed; None after a full search, which does not look.
        forwards: passes spent; ``backwards`` likewise.
        seconds: spent on attacks, those of all processes added up.
        groups: how many there were.
        reused: how many of them had been finished by an earlier run.
        precision: what the search ran in.
        stages: of a composed attack.
        folder: where the groups are, if anywhere.
    """

    inputs: int = 0
    successes: int = 0
    wrong: int | None = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    groups: int = 0
    reused: int = 0
    precision: Precision = "fp32"
    stages: tuple[Stage, ...] = ()
    folder: Path | None = None

    @property
    def accuracy(self) -> float:
        """The share of all inputs that stands."""
        return 1 - self.successes / self.inputs

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy: exact binomial, 95 %."""
        return interval(self.inputs - self.successes, self.inputs)

    def parts(self) -> Iterator[Group]:
        """The groups with their adversarial examples, in order, one at a time from their files.

        Raises:
            UserError: when they were not kept.
        """
        if self.folder is None:
            raise UserError("the adversarial examples were not kept: give evaluate an output folder")
        return map(read_group, files_in(self.folder))

    def __add__(self, other: Evaluation) -> Evaluation:
        """Both together."""
        names = ("inputs", "successes", "forwards", "backwards", "seconds", "groups", "reused")
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in names}
        wrong = None if self.wrong is None or other.wrong is None else self.wrong + other.wrong
        stages = {stage.name: stage for stage in self.stages}
        for stage in other.stages:
            stages[stage.name] = stages[stage.name] + stage if stage.name in stages else stage
        return replace(self, **sums, wrong=wrong, stages=tuple(stages.values()))


def evaluate(
    model: Model,
    data: Data,
    attack: Perturbation,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    group: int = GROUP,
    task: Task = tasks.classification,
    seed: int = 0,
    search: Search = "first",
    precision: Precision = "fp32",
    batch_size: int = 256,
    each: Callable[[Group], None] | None = None,
    watch: Callable[[str, float], None] | None = None,
) -> Evaluation:
    """Attack every input of ``data`` and count what stands.

    One group of inputs is in memory at a time. With ``out`` each is written there as soon as it is finished, so that
    an evaluation that was stopped, or killed, goes on with ``resume`` and ends with the same result. Where
    ``torch.distributed`` is set up, its processes share the groups, ``out`` being one folder that all of them see, and
    all return the same counts; the network must be the same in each.

    Args:
        model: gives logits; it comes back as it was.
        data: a split, or any iterable of (x, y) batches, of any sizes and however many; a resumed evaluation, and
            every process, must be given the same ones in the same order.
        attack: or a noise.
        out: a folder for the groups: group-NNNNNN.safetensors with x_adv, y, ids, beaten, loss, distance, forwards and
            backwards, and manifest.json, by which a resumed evaluation is known to be the same. Without it only counts
            are kept.
        resume: go on with the evaluation in ``out``; where there is none yet, start it.
        group: inputs per group, by position; part of what a resumed evaluation must share.
        task: what the output is for.
        seed: of all draws, which depend on it and the inputs' ids alone.
        search: "first" lets an input go as soon as it is beaten; "full" does not.
        precision: of the search; "auto" is settled once, before the first group, and kept in the manifest.
        batch_size: inputs computed at once.
        each: is told of every finished group of this process, those of earlier runs too, in order.
        watch: is told the attack and the share that is done, for a split.

    Raises:
        UserError: when ``out`` holds something else, an evaluation with other settings or of other inputs, when there
            are no inputs, and for whatever the attack refuses.
    """
    whole("group", group)
    whole("batch_size", batch_size)
    if resume and out is None:
        raise UserError("resuming needs the evaluation's output folder; got none")
    first, given = _begin(grouped(data, group))
    folder, device = None if out is None else Path(out), _device(model, first.x)
    work = Work(
        model=model,
        attack=attack,
        task=task,
        seed=seed,
        search=search,
        precision=precision,
        batch_size=batch_size,
        device=device,
    )
    if processes.place()[1] > 1 and len(set(processes.gathered(digest(model)))) > 1:
        raise UserError("the processes hold different networks: load the same weights in each")

    def begin() -> tuple[Precision, int]:
        asked = partial(settings_of, work, group)
        chosen = open_folder(folder, asked, resume, lambda: settle(work, first.x, first.y))
        return chosen, 0 if folder is None else len(files_in(folder))

    settled, before = processes.once(begin)
    try:
        found, last = _run(given, replace(work, precision=settled), folder, each, _told(watch, attack, data))
    except BaseException:
        if folder is not None and processes.place() == (0, 1):
            leave_folder(folder)
        raise
    parts = processes.gathered(found)
    joined = sum(parts[1:], start=parts[0])
    if folder is not None and len(files_in(folder)) > last + 1:
        raise UserError(f"{folder} holds groups beyond the {joined.inputs} inputs there are now: give the same data")
    return replace(joined, reused=before, wrong=joined.wrong if search == "first" else None)


def _begin(given: Iterator[Given]) -> tuple[Given, Iterator[Given]]:
    """The first group, and all of them."""
    first = next(given, None)
    if first is None:
        raise UserError("an evaluation needs at least one input; the data is empty")
    return first, itertools.chain([first], given)


def _device(model: Model, x: Tensor) -> torch.device:
    weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return x.device if weights is None else weights.device


def _told(watch: Callable[[str, float], None] | None, attack: Perturbation, data: Data) -> Callable[[int], None]:
    """Tells ``watch`` of so many inputs done, where it is known how many there are."""
    if watch is None or not isinstance(data, Split):
        return lambda done: None
    told, name, count = watch, describe(attack), len(data)
    return lambda done: told(name, min(1.0, done / count))


def _run(
    given: Iterable[Given],
    work: Work,
    folder: Path | None,
    each: Callable[[Group], None] | None,
    told: Callable[[int], None],
) -> tuple[Evaluation, int]:
    """This process's share of the groups, added up, and the number of the last group of all."""
    rank, count = processes.place()
    found, last, seen = Evaluation(precision=work.precision, folder=folder), -1, 0

    def mine() -> Iterator[Given]:
        nonlocal last, seen
        for part in given:
            last, seen = part.index, seen + len(part.y)
            if part.index % count == rank:
                yield part

    for group in crafted(mine(), work, folder):
        if found.precision == work.precision:  # told is what ran, where that is another than was asked for
            found = replace(found, precision=group.outcome.precision)
        found = found + _sums(group)
        if each is not None:
            each(group)
        told(seen)
    return found, last


def _sums(group: Group) -> Evaluation:
    outcome = group.outcome
    return Evaluation(
        inputs=len(group.y),
        successes=int(outcome.success.sum()),
        wrong=int((outcome.success & (outcome.distance == 0)).sum()),
        forwards=int(outcome.forwards.sum()),
        backwards=int(outcome.backwards.sum()),
        seconds=group.seconds,
        groups=1,
        stages=outcome.stages,
    )


def settings_of(work: Work, group: int) -> dict[str, Any]:
    """What the outcome of an evaluation depends on, inputs aside, as plain data."""
    return {
        "attack": describe(work.attack),
        "fingerprint": work.attack.fingerprint(),
        "model": digest(work.model),
        "task": plain(work.task),
        "seed": work.seed,
        "search": work.search,
        "precision": work.precision,
        "group": group,
    }


def settle(work: Work, x: Tensor, y: Tensor) -> Precision:
    """The precision of the search: "auto" times them on some inputs; that is not counted."""
    if work.precision != "auto":
        return work.precision
    x, y = x.to(work.device), y.to(work.device)
    check_inputs(work.model, x, y, None)
    with preserved(work.model, "eval", work.seed, work.device):
        try:
            return _fastest(work, x, y, gradient=True)
        except UserError:  # a model without a gradient, for an attack that needs none
            return _fastest(work, x, y, gradient=False)


def _fastest(work: Work, x: Tensor, y: Tensor, *, gradient: bool) -> Precision:
    runner = Runner(work.model, work.task, "auto", work.batch_size, work.attack.draws, exact=work.attack.exact)
    choose_precision(Oracle(runner, x, y), gradient=gradient)
    return runner.precision
