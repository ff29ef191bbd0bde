"""Several processes at one work, by ``torch.distributed`` where it has been set up; alone otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from buttress.errors import UserError

Result = TypeVar("Result")


def start(accelerator: str = "cpu", devices: int = 1) -> torch.device:
    """Set up as many processes as asked for, by Lightning Fabric; where this one computes.

    Args:
        accelerator: of Fabric: "cpu", "cuda", "auto" ...
        devices: processes; with more than one, they have been started with torchrun.

    Raises:
        UserError: when they cannot be had.
    """
    if (accelerator, devices) == ("cpu", 1):
        return torch.device("cpu")
    from lightning_fabric import Fabric

    try:
        fabric = Fabric(accelerator=accelerator, devices=devices)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # Fabric refuses in all of these
        asked = f"accelerator {accelerator!r}, devices {devices}"
        raise UserError(f"{asked} cannot be had: {' '.join(str(error).split())}") from None
    if devices > 1:
        fabric.launch()
    return fabric.device


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def once(work: Callable[[], Result]) -> Result:
    """Have the first process do ``work``; its result, plain data, for all.

    Raises:
        UserError: in every process, when the work raised one; else the others would wait for ever.
    """
    rank, count = place()
    if count == 1:
        return work()
    told: list[Any] = [None, None]
    if rank == 0:
        try:
            told[0] = work()
        except UserError as error:
            told[1] = str(error)
    distributed.broadcast_object_list(told)
    if told[1] is not None:
        raise UserError(told[1])
    result: Result = told[0]
    return result


def gathered(value: Result) -> list[Result]:
    """Every process's ``value``, plain data, in the order of their numbers; all wait here for each other."""
    _, count = place()
    if count == 1:
        return [value]
    found: list[Any] = [None] * count
    distributed.all_gather_object(found, value)
    return found
