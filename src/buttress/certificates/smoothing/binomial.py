"""Exact statements about a probability from counts: the interval of Clopper and Pearson, and the sign test."""

from __future__ import annotations


def lower_bound(successes: int, count: int, alpha: float) -> float:
    """The one-sided exact lower bound of a probability (Clopper and Pearson, 1934); above it with chance ``alpha``.

    It is the quantile at ``alpha`` of the beta distribution of parameters ``successes`` and ``count - successes + 1``.

    Args:
        successes: how often it happened.
        count: independent trials.
        alpha: chance that the bound is above the probability, at most.
    """
    from scipy.special import betaincinv  # what `scipy.stats.binomtest` searches for, some hundred times faster

    return float(betaincinv(successes, count - successes + 1, alpha)) if successes else 0.0


def upper_bound(successes: int, count: int, alpha: float) -> float:
    """The one-sided exact upper bound; below the probability with chance ``alpha`` at most. See `lower_bound`."""
    from scipy.special import betaincinv

    return float(betaincinv(successes + 1, count - successes, 1 - alpha)) if successes < count else 1.0


def majority_p_value(first: int, second: int) -> float:
    """How likely two equally frequent answers differ as much as these counts or more (two-sided, exact).

    Args:
        first: votes for one answer.
        second: votes for the other; 1 is returned where nobody voted.
    """
    from scipy.special import bdtr

    count, fewer = first + second, min(first, second)
    return min(1.0, 2 * float(bdtr(fewer, count, 0.5))) if count else 1.0
