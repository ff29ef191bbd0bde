"""Asked to stop: signals are noted, so that a training can save itself first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Handler = Callable[[int, FrameType | None], None]
Result = TypeVar("Result")


class Interrupted(Exception):  # noqa: N818  (not an error: the run is saved and can go on)
    """Training was asked to stop; its checkpoint is saved.

    Attributes:
        step: steps done; None while the method prepared, which is done again by a run that goes on.
        signal: the signal's number.
    """

    def __init__(self, step: int | None, number: int) -> None:
        text = "stopped while preparing, which is then begun anew" if step is None else f"stopped after step {step}"
        super().__init__(text)
        self.step, self.signal = step, number

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int | None, int]]:
        """Made again from its own arguments, so that it comes over from a worker process."""
        return type(self), (self.step, self.signal)


class _AtOnce(BaseException):
    """Ends the work where it is. No `Exception`: code that handles those and goes on must not handle this."""


@contextmanager
def record_signals() -> Iterator[list[int]]:
    """Note SIGTERM and SIGINT instead of dying of them; the list holds what came."""
    signals: list[int] = []
    with _handled(lambda number, _: signals.append(number)):
        yield signals


def stop_at_signal(signals: list[int], work: Callable[[], Result]) -> Result:
    """What ``work`` makes, which ends where it is at the first SIGTERM or SIGINT; a run that goes on begins it anew.

    Further signals are noted only, so that nothing disturbs what is put back on the way out.

    Args:
        signals: the list of `record_signals`.
        work: what may take long.

    Raises:
        Interrupted: once the work has ended, also if it took no notice.
    """
    if signals:
        raise Interrupted(None, signals[0])
    raised = False

    def obey(number: int, _: FrameType | None) -> None:
        nonlocal raised
        signals.append(number)
        if not raised:
            raised = True
            raise _AtOnce

    try:
        with _handled(obey):
            result = work()
    except _AtOnce:
        raise Interrupted(None, signals[0]) from None
    if signals:  # where Python lets no exception through, as in a finaliser
        raise Interrupted(None, signals[0])
    return result


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """This handler of both signals within the context; none but the main thread may set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in handlers:
            signal.signal(number, handler)
        yield
    finally:
        for number, previous in handlers.items():
            signal.signal(number, previous)
