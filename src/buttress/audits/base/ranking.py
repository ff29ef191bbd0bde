"""Which of several figures may be the highest: those that resampled inputs do not show to be lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress.audits.base.statistics import resamples

LEVEL = 0.05  # of all comparisons of a ranking together
METHOD = "bootstrap over inputs, 95 %; all pairs together (studentised range)"
_MANY = 6  # names in a sentence
_ROUNDING = 1e-6  # relative; smaller differences are those of float32

# From (B, R) means to (B, Q) figures that are ranked.
Figures = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ranking:
    """R figures over the same inputs.

    Attributes:
        values: (R,) the figures; NaN where one is not defined.
        low: (R,) lower ends of their intervals at 95 %, each by itself; ``high`` likewise.
        draws: (B, R) the figures of resampled inputs.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    draws: Tensor

    @property
    def order(self) -> list[int]:
        """Positions, the highest first; what is not defined is left out, and equals stay in order."""
        defined = [k for k, value in enumerate(self.values.tolist()) if not math.isnan(value)]
        return sorted(defined, key=lambda k: -float(self.values[k]))

    def tied(self, row: int | None = None) -> list[int]:
        """Positions of the figures that are not shown to be lower than that of ``row``, highest first.

        Of the highest unless a row is given: the figures that may be the highest. The error rate holds for all pairs
        together, since the data choose the pair: by the studentised range, as in Tukey's test, over the resamples.
        """
        order = self.order
        if not order:
            return []
        row = order[0] if row is None else row
        gap, noise = self.values[row] - self.values[order], (self.draws - self.values)[:, order].nan_to_num()
        largest = torch.stack([_studentised(noise[:, [k]] - noise)[0].amax(1) for k in range(len(order))]).amax(0)
        reach = float(largest.quantile(1 - LEVEL)) * _studentised(noise[:, [order.index(row)]] - noise)[1]
        rounding = _ROUNDING * self.values[order].abs().maximum(self.values[row].abs())
        return [k for k, within in zip(order, (gap <= reach.maximum(rounding)).tolist(), strict=True) if within]

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain data: the names that may be the highest, and the intervals of all."""
        tied = [names[k] for k in self.tied()]
        return {"first": tied, "low": self.low.tolist(), "high": self.high.tolist(), "method": METHOD}


def _studentised(noise: Tensor) -> tuple[Tensor, Tensor]:
    """(B, R) sizes of differences over their standard deviations, 0 where these are 0; and the (R,) deviations."""
    spread = noise.std(0, correction=0)
    return torch.where(spread > 0, noise.abs() / torch.where(spread > 0, spread, 1), 0.0), spread


def ranking(values: Tensor, seed: int, figures: Figures | None = None) -> Ranking:
    """Rank means over inputs, or what follows from them.

    Args:
        values: (R, N), of R things the same N inputs; NaN where one is not defined for an input, which its mean leaves
            out. Minus the values where the lowest comes first.
        seed: of the resampling.
        figures: from (B, R) means to the (B, Q) figures; the means themselves unless given.
    """
    values = values.detach().cpu().double()
    defined = (~values.isnan()).double()
    values = values.nan_to_num()

    def of(weights: Tensor) -> Tensor:
        """(B, Q) figures of (B, N) weights of the inputs."""
        means = (weights @ values.T) / (weights @ defined.T)  # NaN where no input of a resample is defined
        return means if figures is None else figures(means)

    count = values.shape[1]
    drawn = []
    for index in resamples(count, seed):
        weights = torch.zeros(len(index), count, dtype=torch.float64)
        drawn.append(of(weights.scatter_add_(1, index, torch.ones_like(index, dtype=torch.float64))))
    draws = torch.cat(drawn)
    low, high = draws.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return Ranking(of(torch.ones(1, count, dtype=torch.float64))[0], low, high, draws)


def joined(names: Sequence[str]) -> str:
    """Names, one at least, in a sentence: "a, b and c"; of many the first few."""
    if len(names) > _MANY:
        return f"{', '.join(names[:_MANY])} and {len(names) - _MANY} more"
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def tied_shares(shares: Sequence[tuple[int, int]], row: int) -> list[int]:
    """Positions of the shares that are not shown to be higher than that of ``row``, itself among them, in order.

    For shares of different inputs, such as the robust accuracies of classes: Fisher's exact test of each against that
    one, at a level of 5 % over all of them (Bonferroni).

    Args:
        shares: (how many, of how many) each.
        row: the position of the lowest.
    """
    from scipy.stats import fisher_exact

    hits, count = shares[row]

    def p(other: tuple[int, int]) -> float:
        table = [[hits, count - hits], [other[0], other[1] - other[0]]]
        return float(fisher_exact(table, alternative="less").pvalue)

    others = max(1, len(shares) - 1)
    return [k for k, other in enumerate(shares) if k == row or p(other) * others >= LEVEL]
