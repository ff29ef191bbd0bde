"""Paired differences over seeds, and what is concluded from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

REPRODUCED, DIRECTION, NOT = "reproduced", "direction only", "not reproduced"
CANNOT_FAIL = "cannot fail"  # what holds whatever this row's accuracy is, and is no evidence
R_AND_G = "R&G"  # the column that sums the accuracies over all budgets


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one value) and the values themselves.

    A value that is not finite, such as a median distance where an attack fails on most inputs, leaves no deviation, and
    infinities of both signs no mean either: it is NaN.
    """
    finite = all(math.isfinite(v) for v in values)
    mean = (math.fsum if finite else sum)(values) / len(values)
    sd = None
    if finite and len(values) > 1:
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return {"mean": mean, "sd": sd, "seeds": list(values)}


def paired_difference(values: Sequence[float]) -> dict[str, Any]:
    """`spread` of paired differences, with the 95 % interval of their mean by Student's t.

    The interval is None without a deviation, and where that is 0: a few seeds that agree to the digit, such as a
    monitor that fires in all, do not tell how far others would be.
    """
    summary = spread(values)
    low = high = None
    if summary["sd"]:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1)) * summary["sd"] / math.sqrt(len(values))
        low, high = summary["mean"] - half, summary["mean"] + half
    return {**summary, "low": low, "high": high}


def certain_difference(value: float, seeds: int) -> dict[str, Any]:
    """As `paired_difference`, of a difference that is known and the same for every seed."""
    return {**paired_difference([value] * seeds), "low": value, "high": value}


def summarise(values: Sequence[float | str]) -> dict[str, Any]:
    """A figure over seeds: `spread` of numbers, and the list of texts."""
    numbers = [value for value in values if not isinstance(value, str)]
    return spread(numbers) if len(numbers) == len(values) else {"values": [str(value) for value in values]}


def shift(difference: Mapping[str, Any], by: float) -> dict[str, Any]:
    """A paired difference with so much added to it."""
    return {key: None if difference[key] is None else difference[key] + by for key in ("mean", "low", "high")}


def row_differences(better: Mapping[str, Any], than: Mapping[str, Any], column: str) -> dict[str, Any]:
    """Label of each attack -> paired differences of two rows in one column, seed by seed."""
    by_label = {}
    for label, values in better["accuracy"].items():
        pairs = zip(values[column]["seeds"], than["accuracy"][label][column]["seeds"], strict=True)
        # Rounded, so that equal sums of accuracies differ by 0 and not by the rounding of floats.
        by_label[label] = paired_difference([round(mine - other, 9) for mine, other in pairs])
    return by_label


_ROUNDING = 1e-9  # points: a smaller mean is what is left of differences that cancel


def verdict(difference: Mapping[str, Any], published: float | None) -> str:
    """The verdict on one check whose claimed sign is positive.

    Reproduced: the interval excludes 0 in the claimed direction, and the mean is at least half of what was published
    (any size will do where no number was). Direction only: the mean alone has the claimed sign.
    """
    low, mean = difference["low"], difference["mean"]
    if not mean >= _ROUNDING:  # nor is there a direction where the mean is NaN
        return NOT
    large = published is None or mean >= published / 2
    return REPRODUCED if low is not None and low > 0 and large else DIRECTION


def overall(verdicts: Sequence[str]) -> str:
    """The verdict on a claim: all checks reproduced; or at most half with even the direction; or in between.

    Checks that cannot fail are not counted; with no others, nothing is reproduced.
    """
    informative = [v for v in verdicts if v != CANNOT_FAIL]
    if informative and all(v == REPRODUCED for v in informative):
        return REPRODUCED
    in_direction = sum(v != NOT for v in informative)
    return NOT if 2 * in_direction <= len(informative) else DIRECTION
