"""The difference of two shares that were counted on different inputs."""

from __future__ import annotations

import math

from torch import Tensor

from buttress.audits.base.statistics import accuracy

GAP_INTERVAL = "of a difference of two shares from their exact binomial intervals, 95 % (Zou and Donner, 2008)"


def difference(first: Tensor, second: Tensor) -> dict[str, float]:
    """The share of (N,) bool less that of (M,) bool of other inputs.

    The interval is put together from those of the shares, as far as each can lie from its share (the method of variance
    estimates recovery: Zou and Donner, Statistics in Medicine 2008; Newcombe's of 1998 with Wilson's intervals).

    Returns:
        ``difference``, ``low`` and ``high``.
    """
    one, other = accuracy(first), accuracy(second)
    value = one["accuracy"] - other["accuracy"]
    below = math.hypot(one["accuracy"] - one["low"], other["high"] - other["accuracy"])
    beyond = math.hypot(one["high"] - one["accuracy"], other["accuracy"] - other["low"])
    return {"difference": value, "low": max(-1.0, value - below), "high": min(1.0, value + beyond)}
