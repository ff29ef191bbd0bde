"""Asked to stop: signals are noted, so that a training can save itself first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):  # noqa: N818  (not an error: the run is saved and can go on)
    """Training was asked to stop; its checkpoint is saved. ``signal`` is the signal's number."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step, self.signal = step, number


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Note SIGTERM and SIGINT instead of dying of them; the list holds what came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
