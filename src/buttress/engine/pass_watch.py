"""How far an attack has come on the inputs that still stand, told pass by pass to who wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from buttress.engine.pass_count import PassCount

_MOST = 0.99  # told before the attack has returned, for it may ask about a part of the inputs again

Most = Callable[[int], PassCount | None]


class _Watch:
    """Adds up passes of the inputs that stand, as a share of the most that the attack makes."""

    def __init__(self, most: Most, tell: Callable[[float], None]) -> None:
        self._most, self._tell, self._done = cache(most), tell, 0.0

    def add(self, forwards: float, outputs: int) -> None:
        """So many passes more of all inputs that stand."""
        self._done += forwards
        most = self._most(outputs)
        if most is not None:
            self._tell(min(_MOST, self._done / most.forwards))


_watch: ContextVar[_Watch | None] = ContextVar("pass_watch", default=None)


@contextmanager
def passes_watched(most: Most, tell: Callable[[float], None] | None) -> Iterator[None]:
    """Tell the share of an attack's passes that inputs which still stand have behind them, below 1.

    Args:
        most: the most passes of the attack for an input, of the number of the network's outputs; see
            `Perturbation.most_passes`. Nothing is told where it is None.
        tell: receives the share; None for nobody.
    """
    token = _watch.set(None if tell is None else _Watch(most, tell))
    try:
        yield
    finally:
        _watch.reset(token)


def passed(forwards: int, asked: int, standing: int, outputs: int) -> None:
    """Note passes.

    Args:
        forwards: how many.
        asked: of how many inputs.
        standing: how many take part.
        outputs: how many the network has, such as classes.
    """
    watch = _watch.get()
    if watch is not None and standing:
        watch.add(forwards * asked / standing, outputs)
