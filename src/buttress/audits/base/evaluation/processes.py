"""Several processes that share an evaluation, by ``torch.distributed`` where it has been set up; alone otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from buttress.engine.fabric import start_fabric
from buttress.engine.machine import Machine
from buttress.errors import UserError

Result = TypeVar("Result")


def start(machine: Machine = Machine()) -> torch.device:
    """Set up as many processes as there are devices, by Lightning Fabric; the device of this one.

    Args:
        machine: on what; with more than one device, the processes have been started with torchrun.

    Raises:
        UserError: when they cannot be had.
    """
    return machine.device if machine.devices == 1 else start_fabric(machine).device


def rank_and_count() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def on_first_process(work: Callable[[], Result]) -> Result:
    """Run ``work`` in the first process; its result, plain data, for all.

    Raises:
        UserError: in every process, when the work raised one; else the others would wait for ever.
    """
    rank, count = rank_and_count()
    if count == 1:
        return work()
    outcome: list[Any] = [None, None]
    if rank == 0:
        try:
            outcome[0] = work()
        except UserError as error:
            outcome[1] = str(error)
    distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    result: Result = outcome[0]
    return result


def gather(value: Result) -> list[Result]:
    """Every process's ``value``, plain data, in the order of their numbers; all wait here for each other."""
    _, count = rank_and_count()
    if count == 1:
        return [value]
    values: list[Any] = [None] * count
    distributed.all_gather_object(values, value)
    return values
