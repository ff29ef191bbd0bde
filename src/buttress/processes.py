"""What the processes of one job tell each other, by ``torch.distributed`` where it has been set up; alone otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import distributed

from buttress.errors import UserError
from buttress.started import started

Result = TypeVar("Result")


def rank_and_count() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def on_first_process(work: Callable[[], Result]) -> Result:
    """Run ``work`` in the first process; its result, plain data or tensors on the CPU, for all.

    Raises:
        UserError: in every process, when the work raised one; else the others would wait for ever.
    """
    rank, _ = rank_and_count()
    return from_process(0, answer(work) if rank == 0 else None)


def answer(work: Callable[[], Result]) -> Result | UserError:
    """What ``work`` returns, or the user's mistake that it raised, to be told to all by `from_process`."""
    try:
        return work()
    except UserError as error:
        return error


def from_process(rank: int, value: Result | UserError | None) -> Result:
    """What the process with this number holds, for all.

    Raises:
        UserError: in every process, where that is one.
    """
    held: list[Any] = [value]
    if rank_and_count()[1] > 1:
        distributed.broadcast_object_list(held, rank)
    if isinstance(held[0], UserError):
        raise held[0]
    result: Result = held[0]
    return result


def gather(value: Result) -> list[Result]:
    """Every process's ``value``, plain data, in the order of their numbers; all wait here for each other."""
    _, count = rank_and_count()
    if count == 1:
        return [value]
    values: list[Any] = [None] * count
    distributed.all_gather_object(values, value)
    return values


def first_of_host(work: Callable[[], Result]) -> Result:
    """Run ``work`` in the first process of each host, then in the others, who find there what it has downloaded.

    Raises:
        UserError: in every process, where one of the first raised one.
    """
    together = started()
    if together is None or rank_and_count()[1] == 1:
        return work()
    mine = answer(work) if together.local_rank == 0 else None
    for error in gather(mine if isinstance(mine, UserError) else None):
        if error is not None:
            raise error
    return work() if together.local_rank else cast(Result, mine)


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    connection = isinstance(error, RuntimeError) and "gloo" in str(error)
    return connection or (distributed.is_available() and isinstance(error, distributed.DistError))
