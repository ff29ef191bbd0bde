"""Asked to stop: signals are noted, so that a training can save itself first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Handler = Callable[[int, FrameType | None], None]
Made = TypeVar("Made")


class Interrupted(Exception):  # noqa: N818  (not an error: the run is saved and can go on)
    """Training was asked to stop; its checkpoint is saved.

    Attributes:
        step: steps done; None while the method prepared, which is done again by a run that goes on.
        signal: the signal's number.
    """

    def __init__(self, step: int | None, number: int) -> None:
        told = "stopped while preparing, which is then begun anew" if step is None else f"stopped after step {step}"
        super().__init__(told)
        self.step, self.signal = step, number

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int | None, int]]:
        """Made again from its own arguments, so that it comes over from a worker process."""
        return type(self), (self.step, self.signal)


class _AtOnce(BaseException):
    """Ends the work where it is. No `Exception`: those who try something else after one of these must not take it."""


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Note SIGTERM and SIGINT instead of dying of them; the list holds what came."""
    came: list[int] = []
    with _handled(lambda number, _: came.append(number)):
        yield came


def obeying(came: list[int], work: Callable[[], Made]) -> Made:
    """What ``work`` makes, which ends where it is at the first SIGTERM or SIGINT; a run that goes on begins it anew.

    Further signals are noted only, so that nothing disturbs what is put back on the way out.

    Args:
        came: the list of `signals_noted`.
        work: what may take long.

    Raises:
        Interrupted: once the work has ended, also if it took no notice.
    """
    if came:
        raise Interrupted(None, came[0])
    raised = False

    def obey(number: int, _: FrameType | None) -> None:
        nonlocal raised
        came.append(number)
        if not raised:
            raised = True
            raise _AtOnce

    try:
        with _handled(obey):
            made = work()
    except _AtOnce:
        raise Interrupted(None, came[0]) from None
    if came:  # where Python lets no exception through, as in a finaliser
        raise Interrupted(None, came[0])
    return made


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """This handler of both signals meanwhile; only the main thread has a say in that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
