"""Groups shared out among processes, each of which needs all outcomes: what one process finds, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from buttress import processes
from buttress.audits.base.evaluation.groups import GROUP, Group, InputGroup, attack_groups, to_device
from buttress.engine.fingerprint import digest_of
from buttress.errors import UserError


def attack_shared(
    groups: Iterable[InputGroup], attack_group: Callable[[InputGroup], Group], folder: Path | None
) -> Iterator[Group]:
    """As `attack_groups`, every process attacking its share; the outcomes, on the CPU, come to all in order.

    The processes call this for the same groups in the same order. A group's outcome does not depend on the process, so
    it is that of one process alone, which raises the error of the first group that has one.

    Args:
        groups: all of them; of the shares of others nothing is kept but their numbers.
        attack_group: attacks one.
        folder: of finished groups, or None; every process keeps its own there.

    Raises:
        UserError: in every process: as `attack_groups`, and when the processes were given different inputs.
    """
    rank, count = processes.rank_and_count()
    if count == 1:
        yield from attack_groups(groups, attack_group, folder)
        return
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # the first has it already, where all see the same one
    digests: list[str] = []
    own: dict[int, Group | UserError] = {}
    for inputs in groups:
        mine, number = len(digests) % count == rank, len(digests)
        digests.append(inputs.digest)
        if mine and not any(isinstance(outcome, UserError) for outcome in own.values()):
            own[number] = processes.answer(partial(_attacked, inputs, attack_group, folder))
    if len(set(processes.gather(digest_of(*digests)))) > 1:
        raise UserError("the processes were given different inputs: load the same data in each")
    for number in range(len(digests)):
        yield processes.from_process(number % count, own.pop(number, None))


def idle_remark(inputs: int) -> str:
    """A sentence on the processes that no group is left for; empty where there are none."""
    count, groups = processes.rank_and_count()[1], math.ceil(inputs / GROUP)
    if groups >= count:
        return ""
    return (
        f"{inputs} inputs are attacked in groups of {GROUP}, {groups} in all, so {count - groups} of {count} processes "
        "have nothing to attack"
    )


def _attacked(inputs: InputGroup, attack_group: Callable[[InputGroup], Group], folder: Path | None) -> Group:
    """One group, with all its tensors on the CPU, where every process can receive them."""
    group = next(attack_groups([inputs], attack_group, folder))
    cpu = torch.device("cpu")
    return replace(group, y=group.y.cpu(), ids=group.ids.cpu(), outcome=to_device(cpu, group.outcome))
