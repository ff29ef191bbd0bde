"""Which of several figures may be the highest: those that the inputs do not show to be lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress.audits.base.rank_intervals import LEVEL, METHOD, places, shown_above

_MANY = 6  # names in a sentence

# From (B, R) means to (B, Q) figures that are ranked.
Figures = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ranking:
    """R figures over the same N inputs.

    Attributes:
        values: (R,) the figures; NaN where one is not defined.
        low: (R,) lower ends of their intervals at 95 %, each by itself; ``high`` likewise. NaN where a figure hangs on
            one input alone, which says nothing of others.
        shown: (R, R) bool, [k, l] whether figure k is shown to be above figure l; see `shown_above`.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    shown: Tensor

    @property
    def order(self) -> list[int]:
        """Positions, the highest first; what is not defined is left out, and equals stay in order."""
        defined = [k for k, value in enumerate(self.values.tolist()) if not math.isnan(value)]
        return sorted(defined, key=lambda k: -float(self.values[k]))

    def tied(self, row: int | None = None) -> list[int]:
        """Positions of the figures that are not shown to be lower than that of ``row``, highest first.

        Of any unless a row is given: the figures that may be the highest, whose interval of `places` begins at 1.
        """
        lower = self.shown.any(0) if row is None else self.shown[row]
        return [k for k in self.order if not lower[k]]

    def places(self) -> dict[str, list[int | None]]:
        """The place of each figure, the highest first, with simultaneous intervals; see `places`."""
        return places(self.values, self.shown)

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain data: the names that may be the highest, and the intervals of all."""
        tied = [names[k] for k in self.tied()]
        method = f"{METHOD}; intervals by jackknife, 95 %"
        return {"first": tied, "low": self.low.tolist(), "high": self.high.tolist(), "method": method}


def ranking(values: Tensor, seed: int, figures: Figures | None = None) -> Ranking:
    """Rank means over inputs, or what follows from them.

    Intervals are the jackknife's with Student's t (Tukey, Annals of Mathematical Statistics 29, 1958), which for means
    are the t intervals.

    Args:
        values: (R, N), of R things the same N inputs; NaN where one is not defined for an input, which its mean leaves
            out. Minus the values where the lowest comes first.
        seed: of the random signs.
        figures: from (B, R) means to the (B, Q) figures, NaN where they need one that is; the means themselves unless
            given. A figure counts the inputs at which all that it needs is defined.
    """
    from scipy.stats import t

    of = figures or (lambda means: means)
    values = values.detach().cpu().double().T
    defined = ~values.isnan()
    values, number = values.nan_to_num(), defined.sum(0)
    total = values.sum(0)
    means, without_one = (total / number)[None], (total - values) / (number - defined.double())
    known = ~of(means.where(defined, torch.nan)).isnan().T
    all_inputs = of(means)[0]
    count = known.sum(1)
    # What an input adds to the figure, which is the mean of these (jackknife pseudo-values), less the figure.
    added = (all_inputs - of(without_one)).T * (count - 1)[:, None]
    # Of one input everything is NaN: the degrees of freedom are 1 only so that scipy does not warn.
    freedom = (count - 1).clamp(min=1)
    variance = added.square().sum(1) / freedom / count
    reach = torch.from_numpy(t.ppf(0.975, freedom.numpy())) * variance.sqrt()
    influence = added * (len(values) / count)[:, None]
    shown = shown_above(all_inputs, influence, known, seed)
    return Ranking(all_inputs, all_inputs - reach, all_inputs + reach, shown)


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
