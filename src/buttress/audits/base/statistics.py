"""How certain a figure is: exact intervals of shares, paired differences, medians; every draw from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from buttress.certificates.smoothing import lower_bound, upper_bound
from buttress.random import generator

INTERVAL = "exact binomial, 95 %"
_RESAMPLES = 2000  # resamplings of a bootstrap
_AT_ONCE = 1 << 22  # indices drawn at once


def interval(successes: int, count: int) -> tuple[float, float]:
    """The exact binomial interval at 95 % (Clopper and Pearson, 1934), as quantiles of beta distributions."""
    return lower_bound(successes, count, 0.025), upper_bound(successes, count, 0.025)


def accuracy(hits: Tensor) -> dict[str, float]:
    """Of (N,) bool: the share that is true, with its exact interval."""
    successes, count = int(hits.sum()), len(hits)
    low, high = interval(successes, count)
    return {"accuracy": successes / count, "low": low, "high": high}


def bootstrap(count: int, statistic: Callable[[Tensor], Tensor], seed: int) -> tuple[float, float]:
    """The percentile interval at 95 % of a statistic over resampled inputs (Efron, 1979).

    By hand: `scipy.stats.bootstrap` interpolates between resamples, which has no meaning between a number and
    infinity (the distance of an input for which no adversarial example was found), and has no stream of our seeds.

    Args:
        count: inputs, N.
        statistic: from (B, N) indices of resampled inputs to (B,) values, which may be infinite.
        seed: of the resampling.
    """
    random, step = generator(seed, "bootstrap"), max(1, _AT_ONCE // count)
    parts = [
        statistic(torch.randint(count, (min(step, _RESAMPLES - start), count), generator=random))
        for start in range(0, _RESAMPLES, step)
    ]
    values = torch.cat(parts).double().sort().values
    return float(values[round(0.025 * (_RESAMPLES - 1))]), float(values[round(0.975 * (_RESAMPLES - 1))])


def paired(first: Tensor, second: Tensor, seed: int) -> dict[str, Any]:
    """How the shares of two (N,) bool over the same N inputs differ.

    Returns:
        ``difference``, the second share minus the first, with its bootstrap interval ``low`` to ``high`` over inputs,
        both resampled together; ``gained`` and ``lost``, how many inputs only the second and only the first has; ``p``
        of McNemar's exact test, 1 where no input differs.
    """
    from scipy.stats import binomtest

    first, second = first.cpu().bool(), second.cpu().bool()
    change = second.double() - first.double()
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    low, high = bootstrap(len(change), lambda index: change[index].mean(1), seed)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return {"difference": float(change.mean()), "low": low, "high": high, "gained": gained, "lost": lost, "p": p}


def median(values: Tensor, seed: int) -> dict[str, float]:
    """The median of (N,) values, some perhaps infinite, with its bootstrap interval: ``median``, ``low``, ``high``."""
    values = values.detach().cpu().double()
    low, high = bootstrap(len(values), lambda index: torch.from_numpy(np.median(values[index], axis=1)), seed)
    return {"median": float(np.median(values)), "low": low, "high": high}
