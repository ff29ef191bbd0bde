"""Two attacks on the same inputs: which of them is successful more often, by exact tests and not by luck."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor


def at_least(count: int, trials: int, chance: float) -> float:
    """The probability that a binomial of so many trials is ``count`` or more."""
    from scipy.stats import binom

    return float(binom.sf(count - 1, trials, chance)) if count > 0 else 1.0


@dataclass(frozen=True)
class Comparison:
    """A challenger against a reference, input by input.

    Attributes:
        challenger: a few words.
        reference: likewise.
        inputs: how many were attacked.
        standing: inputs classified correctly under the challenger; ``reference_standing`` under the reference.
        won: inputs on which only the challenger is successful; ``lost`` those on which only the reference is.
        p: of the one-sided exact test that both are equally strong (McNemar, 1947): won of won + lost fair coins.
        p_missed: of the exact test that the reference misses at most a share ``tolerated`` of the inputs on
            which the challenger is successful.
        level: of each test, corrected for their number.
        floor: the smallest surplus (won - lost) / inputs that counts.
        tolerated: a share of the inputs.
        effort: whether the challenger is the costlier of the two, so that a small surplus is no surprise.
    """

    challenger: str
    reference: str
    inputs: int
    standing: int
    reference_standing: int
    won: int
    lost: int
    p: float
    p_missed: float
    level: float
    floor: float
    tolerated: float
    effort: bool

    @property
    def surplus(self) -> float:
        """By how much the challenger lowers robust accuracy, as a share of the inputs; negative where it is weaker."""
        return (self.won - self.lost) / self.inputs

    @property
    def stronger(self) -> bool:
        """Whether the challenger is shown to be stronger than it may be.

        One that costs more may win up to the tolerated share; a weaker one must not win at all beyond the floor,
        nor be successful on more than the tolerated share of inputs that the reference misses, whatever it loses.
        """
        missed = self.p_missed <= self.level
        ahead = self.p <= self.level and self.surplus >= self.floor
        return (missed and ahead) if self.effort else (missed or ahead)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "surplus": self.surplus, "stronger": self.stronger}


def least_gap(inputs: int, *, level: float, floor: float, tolerated: float) -> float | None:
    """The smallest surplus, as a share of so many inputs, that a costlier attack can be shown to have; None for none.

    Where it is successful on all that the reference is: with fewer won the exact tests leave a gap to chance.
    """
    for won in range(1, inputs + 1):
        tests = at_least(won, won, 0.5), at_least(won, inputs, tolerated)
        if max(tests) <= level and won / inputs >= floor:
            return won / inputs
    return None


def compare(
    challenger: tuple[str, Tensor],
    reference: tuple[str, Tensor],
    *,
    level: float,
    floor: float,
    tolerated: float,
    effort: bool = False,
) -> Comparison:
    """Compare two attacks, each a name and (N,) bool, the inputs that are robust under it."""
    (name, robust), (other_name, other_robust) = challenger, reference
    won, lost = int((other_robust & ~robust).sum()), int((robust & ~other_robust).sum())
    return Comparison(
        name,
        other_name,
        len(robust),
        int(robust.sum()),
        int(other_robust.sum()),
        won,
        lost,
        at_least(won, won + lost, 0.5),
        at_least(won, len(robust), tolerated),
        level,
        floor,
        tolerated,
        effort,
    )
