"""How the budget grows in certified training."""

from __future__ import annotations

from collections.abc import Sequence

from buttress.errors import UserError
from buttress.validation import share

_MIDDLE = 0.25  # share of the rise at which it becomes a straight line
_POWER = 4


def share_of_eps(progress: float, rise: tuple[float, float]) -> float:
    """The share of eps when a share ``progress`` of the training is done: 0 before the rise, 1 after it.

    Between them it rises as the fourth power of time during the first quarter, then along the straight line with the
    slope reached there: the smoothed schedule of auto_LiRPA (Xu et al., NeurIPS 2020).
    """
    begin, end = rise
    if progress >= end:
        return 1.0
    if progress <= begin:
        return 0.0
    time = (progress - begin) / (end - begin)
    factor = 1 / (_MIDDLE ** (_POWER - 1) * (_MIDDLE + _POWER * (1 - _MIDDLE)))  # so that it ends at 1
    if time < _MIDDLE:
        return float(factor * time**_POWER)
    return float(1 - factor * _POWER * _MIDDLE ** (_POWER - 1) * (1 - time))


def between(weights: tuple[float, float], risen: float) -> float:
    """A weight on its way from the first of two, where eps is 0, to the second, where a share 1 of eps has risen."""
    first, last = weights
    return first + (last - first) * risen


def ends(name: str, values: float | Sequence[float]) -> tuple[float, float]:
    """Two numbers in [0, 1], at eps 0 and at the whole eps; one stands for both.

    Raises:
        UserError: for anything else.
    """
    several = tuple(values) if isinstance(values, list | tuple) else (values, values)
    if len(several) != 2:
        raise UserError(f"{name} must be two numbers, for eps 0 and for the whole eps; got {values!r}")
    return share(name, several[0]), share(name, several[1])
