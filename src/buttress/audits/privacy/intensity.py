"""Robustified intensity: how much longer gradients are at adversarial examples than at the inputs themselves."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from buttress.audits.base.statistics import bootstrap
from buttress.layers.example_gradients import STATISTICS, Statistic, ratios


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
    found: dict[str, Any] = {name: {"ratio": None} for name in STATISTICS}
    for name, value in ratios(above, below).items():
        found[name], statistic = {"ratio": value}, STATISTICS[name]
        if name != "max":

            def ratio(index: Tensor, statistic: Statistic = statistic) -> Tensor:
                return statistic(above[index]) / statistic(below[index])

            low, high = bootstrap(min(len(above), len(below)), ratio, seed)
            found[name] |= {"low": low, "high": high} if math.isfinite(low + high) else {}
    return found
