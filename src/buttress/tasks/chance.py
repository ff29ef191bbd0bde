"""What a guess gets: the score of the best answer that is the same for all inputs.

Where the best answer for the inputs at hand is right for each of them, these cannot say what a guess gets: it counts
what the best answer would get if all classes, or all sets of labels, were as frequent.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_CANDIDATES = 1000  # answers of several values that are tried at most
_ROUNDING = 1e-6  # relative, of a tolerance in float32


def best_class(y: Tensor, classes: int, tolerance: int = 0) -> float:
    """The share of the inputs that one class is right for.

    Args:
        y: (N,) the true classes.
        classes: how many there are.
        tolerance: how many classes an answer may be away from the truth.
    """
    counts = y.long().cpu().bincount(minlength=classes)
    within = counts.cumsum(0)
    reach = torch.arange(classes)
    before = torch.cat([within.new_zeros(1), within])[(reach - tolerance).clamp(min=0)]
    share = float((within[(reach + tolerance).clamp(max=classes - 1)] - before).max()) / len(y)
    return share if share < 1 else min(1.0, (2 * tolerance + 1) / classes)


def best_set(y: Tensor, every: bool) -> float:
    """The share of the inputs that one set of labels is right for.

    Args:
        y: (N, L) the labels, above 0 where they are there.
        every: whether all labels must be right, or one at least.
    """
    sets = 2.0 ** y.shape[1]
    counts = np.unique((y > 0).cpu().numpy(), axis=0, return_counts=True)[1]
    if every:
        share = float(counts.max()) / len(y)
        return share if share < 1 else 1 / sets
    # An answer is wrong for its complement alone.
    return 1 - float(counts.min()) / len(y) if len(counts) == sets else 1 - 1 / sets


def best_values(y: Tensor, tolerance: float) -> float:
    """The share of the inputs whose values are all within ``tolerance`` of the same answer.

    For one value it is exact. For several, the answers that are tried are the truths, up to 1000 of them, and the best
    of each value by itself, so that a still better one may exist.

    Args:
        y: (N,) or (N, D) the true values.
        tolerance: the largest error that is right, in their units.
    """
    values = y.detach().cpu().double().reshape(len(y), -1)
    reach = tolerance * (1 + _ROUNDING)
    ordered = values.sort(0).values.T.contiguous()  # (D, N)
    inside = torch.searchsorted(ordered, ordered + 2 * reach, right=True) - torch.arange(len(y))
    most, first = inside.max(1)
    if len(most) == 1:
        return float(most) / len(y)
    alone = ordered.gather(1, first[:, None]).T + tolerance
    rows = torch.linspace(0, len(y) - 1, min(len(y), _CANDIDATES)).round().long()
    answers = torch.cat([alone, values[rows]])
    return max(float(((values - answer).abs().amax(1) <= reach).double().mean()) for answer in answers)
