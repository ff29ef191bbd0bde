"""Progress where no terminal shows a bar, as in a log of a batch system: now and then a plain line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from buttress.jobs.duration import duration

_FIRST = 30.0  # seconds, also the shortest pause; shorter work is told by its result alone
_SHARE = 0.1  # of the time since the start, between two lines
_LONGEST = 300.0  # seconds; systems that watch a job take ten minutes without a word for its end


def figures_text(figures: Mapping[str, float]) -> str:
    """The latest accuracies, or the name of what is being done."""
    shown = [(name, figures[name]) for name in ("clean", "robust") if name in figures]
    return "  ".join(f"{name} {value:.1%}" for name, value in shown) or ", ".join(
        name for name in figures if name not in ("epoch", "loss")
    )


def percentage(done: float) -> str:
    """The share that is done; empty where there is none yet, or it is not known."""
    return f"{done:.0%}" if done > 0 else ""


class ProgressLines:
    """Writes a line such as "training by at: 34%, about 2 min left, clean 81.2%  robust 40.1%".

    The first comes after half a minute, the next ones each after a tenth of the time since the start, half a minute at
    least and 5 minutes at most. A share of 0 is one that is not known, and is not written. The time left is what the
    pace since the first call amounts to, since work that is resumed begins far from 0. Where the share falls, a further
    piece of the work has begun, such as the next attack.

    Args:
        title: of the work.
        write: takes a line.
        clock: seconds since some moment.
    """

    def __init__(self, title: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._title, self._write, self._clock = title, write, clock
        self._start = self._told = clock()
        self._began: tuple[float, float] | None = None  # when the piece of work began, and the share done then
        self._before = (self._start, 0.0)  # the same of the call before

    def __call__(self, done: float, figures: Mapping[str, float]) -> None:
        """A share ``done`` of the work is over."""
        now = self._clock()
        if self._began is None:
            self._began = (now, done)
        elif done < self._before[1]:
            self._began = (self._before[0], 0.0)
        self._before = (now, done)
        pause = max(_FIRST, min(_LONGEST, _SHARE * (now - self._start)))
        if now - self._told < pause:
            return
        self._told = now
        start, share = self._began
        left = f"about {duration((now - start) * (1 - done) / (done - share))} left" if share < done < 1 else ""
        parts = (percentage(done), left, figures_text(figures))
        self._write(f"{self._title}: " + ", ".join(filter(None, parts)))
