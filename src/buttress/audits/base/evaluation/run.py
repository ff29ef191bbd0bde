"""Evaluation of any number of inputs: group by group, in constant memory, in several processes, resumable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from buttress import processes, tasks
from buttress.ambient_state import in_usual_state
from buttress.attacks import Perturbation
from buttress.audits.base.evaluation.groups import (
    GROUP,
    Data,
    Group,
    GroupAttack,
    InputGroup,
    attack_groups,
    files_in,
    grouped,
    read_group,
)
from buttress.audits.base.evaluation.manifest import leave_folder, open_folder
from buttress.audits.base.statistics import interval
from buttress.data.dataset import Split
from buttress.engine.call_checks import check_inputs
from buttress.engine.fingerprint import digest, plain
from buttress.engine.oracle import Oracle, Search, Stage
from buttress.engine.preserved_model import Model, preserved
from buttress.engine.runner import Precision, Runner
from buttress.errors import UserError
from buttress.output_place import claims
from buttress.tasks import Task
from buttress.validation import whole


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: sums over all inputs, earlier runs and other processes included.

    Attributes:
        inputs: how many there were.
        successes: for how many the attack is successful, including those misclassified unperturbed.
        wrong: how many are misclassified unperturbed; None after a full search, which does not count them.
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
        """Robust accuracy: the share of all inputs for which the attack is not successful."""
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


@claims("out")
@in_usual_state
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
    """Robust accuracy: attack every input of ``data`` and count.

    One group of inputs is in memory at a time. With ``out`` each is written there as soon as it is finished, so that
    an evaluation that was stopped, or killed, goes on with ``resume`` and ends with the same result. Where
    ``torch.distributed`` is set up, its processes share the groups, ``out`` being one folder that all of them see, and
    all return the same counts; the network must be the same in each.

    Args:
        model: gives logits; it comes back as it was.
        data: a split, or any iterable of batches (x, y), see `read_batches`, of any sizes and however many; a resumed
            evaluation, and every process, must be given the same ones in the same order.
        attack: or a noise.
        out: a folder for the groups: group-NNNNNN.safetensors with x_adv, y, ids, success, loss, distance, forwards and
            backwards, and manifest.json, by which a resumed evaluation is known to be the same. Without it only counts
            are kept.
        resume: go on with the evaluation in ``out``; where there is none yet, start it.
        group: inputs per group, by position; part of what a resumed evaluation must share.
        task: what the output is for.
        seed: of all draws, which depend on it and the inputs' ids alone.
        search: "first" stops for an input at its first success; "full" does not.
        precision: of the search; "auto" is chosen once, before the first group, and kept in the manifest.
        batch_size: inputs computed at once.
        each: called with every finished group of this process, those of earlier runs too, in order.
        watch: called with the attack's name and the share that is done, for a split.

    Raises:
        UserError: when ``out`` holds something else, an evaluation with other settings or of other inputs, when there
            are no inputs, and for whatever the attack refuses.
    """
    whole("group", group)
    whole("batch_size", batch_size)
    if resume and out is None:
        raise UserError("resuming needs the evaluation's output folder; got none")
    first, groups = _with_first(grouped(data, group))
    folder, device = None if out is None else Path(out), _device(model, first.x)
    attack_group = GroupAttack(
        model=model,
        attack=attack,
        task=task,
        seed=seed,
        search=search,
        precision=precision,
        batch_size=batch_size,
        device=device,
    )
    if processes.rank_and_count()[1] > 1 and len(set(processes.gather(digest(model)))) > 1:
        raise UserError("the processes hold different networks: load the same weights in each")

    def begin() -> tuple[Precision, int]:
        settings = partial(settings_of, attack_group, group)
        chosen = open_folder(folder, settings, resume, lambda: search_precision(attack_group, first.x, first.y))
        return chosen, 0 if folder is None else len(files_in(folder))

    chosen_precision, finished = processes.on_first_process(begin)
    try:
        result, last_index = _attack_share(
            groups,
            replace(attack_group, precision=chosen_precision, tell=_progress(watch, attack, data, group)),
            folder,
            each,
        )
    except BaseException:
        if folder is not None and processes.rank_and_count() == (0, 1):
            leave_folder(folder)
        raise
    parts = processes.gather(result)
    total = sum(parts[1:], start=parts[0])
    if folder is not None and len(files_in(folder)) > last_index + 1:
        raise UserError(f"{folder} holds groups beyond the {total.inputs} inputs there are now: give the same data")
    return replace(total, reused=finished, wrong=total.wrong if search == "first" else None)


def _with_first(groups: Iterator[InputGroup]) -> tuple[InputGroup, Iterator[InputGroup]]:
    """The first group, and all of them."""
    first = next(groups, None)
    if first is None:
        raise UserError("an evaluation needs at least one input; the data is empty")
    return first, itertools.chain([first], groups)


def _device(model: Model, x: Tensor) -> torch.device:
    weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return x.device if weights is None else weights.device


def _progress(
    watch: Callable[[str, float], None] | None, attack: Perturbation, data: Data, group: int
) -> Callable[[int, float], None] | None:
    """Calls ``watch`` with the share that is done, of a group's index and its share, where the number is known."""
    if watch is None or not isinstance(data, Split):
        return None
    call, name, count = watch, attack.label(), len(data)

    def tell(index: int, share: float) -> None:
        before = index * group
        call(name, (before + share * min(group, count - before)) / count)

    return tell


def _attack_share(
    groups: Iterable[InputGroup],
    attack_group: GroupAttack,
    folder: Path | None,
    each: Callable[[Group], None] | None,
) -> tuple[Evaluation, int]:
    """This process's share of the groups, added up, and the number of the last group of all."""
    rank, count = processes.rank_and_count()
    result, last_index = Evaluation(precision=attack_group.precision, folder=folder), -1

    def own_groups() -> Iterator[InputGroup]:
        nonlocal last_index
        for part in groups:
            last_index = part.index
            if part.index % count == rank:
                yield part

    for group in attack_groups(own_groups(), attack_group, folder):
        if result.precision == attack_group.precision:  # what ran, where that is not what was requested
            result = replace(result, precision=group.outcome.precision)
        result = result + _sums(group)
        if each is not None:
            each(group)
        if attack_group.tell is not None:
            attack_group.tell(group.index, 1.0)
    return result, last_index


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


def settings_of(attack_group: GroupAttack, group: int) -> dict[str, Any]:
    """What the outcome of an evaluation depends on, inputs aside, as plain data."""
    return {
        "attack": attack_group.attack.label(),
        "fingerprint": attack_group.attack.fingerprint(),
        "model": digest(attack_group.model),
        "task": plain(attack_group.task),
        "seed": attack_group.seed,
        "search": attack_group.search,
        "precision": attack_group.precision,
        "group": group,
    }


def search_precision(attack_group: GroupAttack, x: Tensor, y: Tensor) -> Precision:
    """The precision of the search: "auto" times them on some inputs; that is not counted."""
    if attack_group.precision != "auto":
        return attack_group.precision
    x, y = x.to(attack_group.device), y.to(attack_group.device)
    check_inputs(attack_group.model, x, y, None)
    with preserved(attack_group.model, "eval", attack_group.seed, attack_group.device):
        try:
            return _fastest(attack_group, x, y, gradient=True)
        except UserError:  # a model without a gradient, for an attack that needs none
            return _fastest(attack_group, x, y, gradient=False)


def _fastest(attack_group: GroupAttack, x: Tensor, y: Tensor, *, gradient: bool) -> Precision:
    runner = Runner(
        attack_group.model,
        attack_group.task,
        "auto",
        attack_group.batch_size,
        attack_group.attack.draws,
        exact=attack_group.attack.exact,
    )
    Oracle(runner, x, y).settle_precision(gradient=gradient)
    return runner.precision
