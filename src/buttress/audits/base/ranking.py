"""Which of several figures may be the highest: those that the inputs do not show to be lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress.random import generator

LEVEL = 0.05  # of all comparisons of a ranking together
FEWEST = 6  # inputs that show anything at that level: of all signs of 5, a sixteenth are alike
METHOD = (
    f"sign flips of paired differences, 5 % for all pairs together, which takes {FEWEST} inputs at least; "
    "intervals by jackknife, 95 %"
)
_FLIPS = 1999  # beside the signs as they are
_AT_ONCE = 1 << 22  # signs drawn at once
_MANY = 6  # names in a sentence
_ROUNDING = 1e-6  # relative; smaller differences are those of float32

# From (B, R) means to (B, Q) figures that are ranked.
Figures = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ranking:
    """R figures over the same N inputs.

    Attributes:
        values: (R,) the figures; NaN where one is not defined.
        low: (R,) lower ends of their intervals at 95 %, each by itself; ``high`` likewise. NaN where a figure hangs on
            one input alone, which says nothing of others.
        shares: (R, N) what each input adds to a figure, which is their mean (jackknife pseudo-values); NaN where a
            figure hangs on one input alone.
        flipped: (B, R) sums over the inputs of the shares with random signs, the same for all figures.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    shares: Tensor
    flipped: Tensor

    @property
    def order(self) -> list[int]:
        """Positions, the highest first; what is not defined is left out, and equals stay in order."""
        defined = [k for k, value in enumerate(self.values.tolist()) if not math.isnan(value)]
        return sorted(defined, key=lambda k: -float(self.values[k]))

    def tied(self, row: int | None = None) -> list[int]:
        """Positions of the figures that are not shown to be lower than that of ``row``, highest first.

        Of the highest unless a row is given: the figures that may be the highest. The error rate, at most 5 %, holds
        for all pairs together, since the data choose the pair (Westfall and Young, "Resampling-Based Multiple Testing",
        1993): a difference counts where it is as large, over the root of its squares, as the largest one of all pairs
        is under 5 % of all random signs. Where two figures are equal and the differences between them symmetric, every
        sign is as likely, so this is exact for any number of inputs and any distribution: with fewer than 6 inputs
        nothing is told apart, and shares of two networks are compared as by McNemar's exact test. For skewed
        differences it holds with many inputs, as the t test does: of lognormal values and their constant mean, some
        15 % are told apart with 10 inputs, 8 % with 200.
        """
        order = self.order
        if not order:
            return []
        row = order[0] if row is None else row
        largest = torch.stack([self._sizes(self.flipped, k, order).amax(1) for k in order]).amax(0)
        sizes = self._sizes(self.shares.sum(1)[None], row, order)[0]
        as_large = 1 + (largest[:, None] >= sizes * (1 - _ROUNDING)).sum(0)
        gap = self.values[row] - self.values[order]
        rounding = _ROUNDING * self.values[order].abs().maximum(self.values[row].abs())
        lower = (as_large <= LEVEL * (1 + len(largest))) & (gap > rounding)
        return [k for k, is_lower in zip(order, lower.tolist(), strict=True) if not is_lower]

    def _sizes(self, sums: Tensor, row: int, others: Sequence[int]) -> Tensor:
        """(B, len(others)) sizes of the differences to ``row`` over the root of their squares; 0 where not known."""
        spread = (self.shares[[row]] - self.shares[others]).square().sum(1).sqrt()
        return ((sums[:, [row]] - sums[:, others]).abs() / spread).nan_to_num(0.0)

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain data: the names that may be the highest, and the intervals of all."""
        tied = [names[k] for k in self.tied()]
        return {"first": tied, "low": self.low.tolist(), "high": self.high.tolist(), "method": METHOD}


def ranking(values: Tensor, seed: int, figures: Figures | None = None) -> Ranking:
    """Rank means over inputs, or what follows from them.

    Intervals are the jackknife's with Student's t (Tukey, Annals of Mathematical Statistics 29, 1958), which for means
    are the t intervals.

    Args:
        values: (R, N), of R things the same N inputs; NaN where one is not defined for an input, which its mean leaves
            out. Minus the values where the lowest comes first.
        seed: of the random signs.
        figures: from (B, R) means to the (B, Q) figures; the means themselves unless given.
    """
    from scipy.stats import t

    values = values.detach().cpu().double().T
    defined = (~values.isnan()).double()
    values = values.nan_to_num()
    count, total, number = len(values), values.sum(0), defined.sum(0)
    means, without_one = (total / number)[None], (total - values) / (number - defined)
    if figures is not None:
        means, without_one = figures(means), figures(without_one)
    all_inputs = means[0]
    shares = (count * all_inputs - (count - 1) * without_one).T
    # Of one input everything is NaN: the degrees of freedom are 1 only so that torch does not warn.
    variance = (shares - all_inputs[:, None]).square().sum(1) / max(1, count - 1)
    reach = float(t.ppf(0.975, max(1, count - 1))) * (variance / count).sqrt()
    return Ranking(all_inputs, all_inputs - reach, all_inputs + reach, shares, _flipped(shares, seed))


def _flipped(shares: Tensor, seed: int) -> Tensor:
    """(B, R) sums of (R, N) shares with random signs."""
    random, count = generator(seed, "signs"), shares.shape[1]
    step, sums = max(1, _AT_ONCE // count), []
    for start in range(0, _FLIPS, step):
        signs = torch.randint(2, (min(step, _FLIPS - start), count), generator=random)
        sums.append((2 * signs - 1).double() @ shares.T)
    return torch.cat(sums)


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
