"""Robustified intensity: how much longer gradients are at adversarial examples than at the inputs themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from buttress.audits.base.statistics import bootstrap

Statistic = Callable[[Tensor], Tensor]  # from (..., N) lengths to (...)

STATISTICS: Mapping[str, Statistic] = {
    "max": lambda norms: norms.amax(-1),
    "p95": lambda norms: norms.quantile(0.95, dim=-1),
    "mean": lambda norms: norms.mean(-1),
}


def lengths(norms: Tensor) -> dict[str, float]:
    """Largest, 95th percentile and mean of (N,) gradient norms."""
    return {name: float(statistic(norms.double())) for name, statistic in STATISTICS.items()}


def intensity(above: Tensor, below: Tensor, seed: int) -> dict[str, Any]:
    """Robustified intensity, the ratio of gradient norms' maxima, and of their 95th percentiles and means.

    The maximum is the definition (arXiv 2012.13573) and noisy, since one input decides it, so it has no interval here:
    resampling inputs says nothing of one that is larger than all that are there.

    Args:
        above: (N,) norms at adversarial examples.
        below: (M,) norms at inputs as they are; of the same inputs where it is one network (N = M, paired).
        seed: of the resampling.

    Returns:
        By statistic the ``ratio``, None where the lower norms are 0, and for the latter two the bootstrap interval at
        95 % over inputs, ``low`` to ``high``; pairs are resampled together.
    """
    above, below = above.double().cpu(), below.double().cpu()
    found: dict[str, Any] = {}
    for name, statistic in STATISTICS.items():
        divisor = float(statistic(below))
        found[name] = {"ratio": float(statistic(above)) / divisor if divisor else None}
        if divisor and name != "max":

            def ratio(index: Tensor, statistic: Statistic = statistic) -> Tensor:
                return statistic(above[index]) / statistic(below[index])

            low, high = bootstrap(min(len(above), len(below)), ratio, seed)
            found[name] |= {"low": low, "high": high} if math.isfinite(low + high) else {}
    return found


def one_ratio(above: Tensor, below: Tensor) -> dict[str, float]:
    """By statistic the ratio alone; without those whose divisor is 0."""
    pairs = {name: (float(of(above.double())), float(of(below.double()))) for name, of in STATISTICS.items()}
    return {name: high / low for name, (high, low) in pairs.items() if low}
