"""The classes that targeted attacks lead to."""

from __future__ import annotations

from torch import Tensor


def ranked(clean: Tensor, y: Tensor, count: int) -> Tensor:
    """(N, K) the classes other than ``y`` by falling clean logit; K is ``count``, or all that there are.

    Args:
        clean: (N, C) outputs for the unperturbed inputs.
        y: (N,) the truth.
        count: how many at most.
    """
    others = clean.scatter(1, y[:, None], float("-inf"))
    return others.topk(min(count, clean.shape[1] - 1), dim=1).indices
