"""Places among several things, and how far they move when other inputs are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from buttress.audits.base.ranking import FEWEST
from buttress.audits.base.statistics import RESAMPLES, resamples

METHOD = f"percentiles of {RESAMPLES:,} bootstrap resamples of the inputs, 95 % for each place by itself"

# From (B, N) float64 how often each input counts, in B samples, to (B, R) figures of R things.
Statistic = Callable[[Tensor], Tensor]


def ranks(count: int, statistic: Statistic, seed: int, *, largest_first: bool = True) -> dict[str, Any]:
    """The place of each of R things by a figure over the same N inputs, with bootstrap intervals (Efron, 1979).

    Args:
        count: N.
        statistic: the figures of samples of the inputs, as `means` and `medians` have them; may be infinite, and NaN
            where a figure is not defined.
        seed: of the resampling.
        largest_first: whether the largest figure has place 1, or the smallest.

    Returns:
        ``rank``, places from 1, equals sharing the first of theirs; ``low`` and ``high``, the ends of their intervals.
        None for what is not defined; without inputs nothing is. Of fewer than 6 inputs every place is possible. A
        resample without a figure counts for nothing.
    """
    nothing = [None] * statistic(torch.zeros(1, count, dtype=torch.float64)).shape[1]
    if not count or not nothing:
        return {"rank": nothing, "low": nothing, "high": nothing}
    sign = -1 if largest_first else 1
    rank = _places(sign * statistic(torch.ones(1, count, dtype=torch.float64)))[0]
    drawn = []
    for index in resamples(count, seed):
        weights = torch.zeros(len(index), count, dtype=torch.float64)
        weights.scatter_add_(1, index, torch.ones_like(weights))
        drawn.append(_places(sign * statistic(weights)))
    bounds = torch.cat(drawn).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), 0, interpolation="nearest")
    if count < FEWEST:
        bounds[0], bounds[1] = 1, (~rank.isnan()).sum()
    bounds = bounds.where(~rank.isnan(), torch.nan)
    return {name: _whole(row) for name, row in (("rank", rank), ("low", bounds[0]), ("high", bounds[1]))}


def means(values: Tensor) -> Statistic:
    """Means of (R, N) values, without those that are NaN."""
    defined = (~values.isnan()).double().T
    filled = values.double().nan_to_num(0.0).T
    return lambda weights: (weights @ filled) / (weights @ defined)


def medians(values: Tensor) -> Statistic:
    """Medians of (R, N) values, some perhaps infinite, without those that are NaN; the mean of the middle two."""
    ordered, order = values.double().sort(1)  # NaN last
    defined = (~ordered.isnan()).double()

    def of(weights: Tensor) -> Tensor:
        figures = torch.full((len(weights), len(values)), torch.nan, dtype=torch.float64)
        for k, row in enumerate(ordered if ordered.shape[1] else ()):
            reached = (weights[:, order[k]] * defined[k]).cumsum(1)
            total = reached[:, -1:]
            # The middle two of n in order are those at ceil(n / 2) and floor(n / 2) + 1.
            lower, upper = (
                row[torch.searchsorted(reached, at.clamp(min=1)).squeeze(1).clamp(max=len(row) - 1)]
                for at in ((total / 2).ceil(), (total / 2).floor() + 1)
            )
            middle = torch.where(lower == upper, lower, (lower + upper) / 2)  # the sum of infinities of a sign is one
            figures[:, k] = torch.where(total.squeeze(1) > 0, middle, torch.nan)
        return figures

    return of


def _places(figures: Tensor) -> Tensor:
    """(B, R) float64 places, the smallest figure first; NaN for NaN."""
    ordered = figures.sort(1).values.contiguous()
    place = torch.searchsorted(ordered, figures.contiguous()).double() + 1
    return place.where(~figures.isnan(), torch.nan)


def _whole(row: Tensor) -> list[int | None]:
    return [None if value != value else round(value) for value in row.tolist()]
