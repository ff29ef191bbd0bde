"""Paired intervals against tabulated quantiles, and the verdict rule case by case."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.claims.seed_statistics import DIRECTION, NOT, REPRODUCED, overall, paired_difference, spread, verdict

# Student's t at 97.5 % for 1, 2 and 4 degrees of freedom, as printed in any table.
QUANTILE = {2: 12.706, 3: 4.303, 5: 2.776}


@pytest.mark.parametrize("values", [[1.0, 3.0], [2.0, -1.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.5]])
def test_the_interval_is_students(values):
    count, mean = len(values), sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1))
    half = QUANTILE[count] * sd / math.sqrt(count)
    found = paired_difference(values)
    assert found["mean"] == pytest.approx(mean)
    assert found["sd"] == pytest.approx(sd)
    assert found["low"] == pytest.approx(mean - half, rel=1e-3)
    assert found["high"] == pytest.approx(mean + half, rel=1e-3)
    assert found["seeds"] == values


def test_one_seed_has_no_spread_and_no_interval():
    assert spread([3.0]) == {"mean": 3.0, "sd": None, "seeds": [3.0]}
    assert paired_difference([3.0])["low"] is None
    assert verdict(paired_difference([3.0]), 1.0) == DIRECTION


@pytest.mark.parametrize(
    ("values", "published", "expected"),
    [
        ([10.0, 11.0, 12.0], 12.0, REPRODUCED),
        ([10.0, 11.0, 12.0], None, REPRODUCED),
        ([10.0, 11.0, 12.0], 23.0, DIRECTION),  # sure, but less than half of what was published
        ([10.0, 11.0, 12.0], 22.0, REPRODUCED),  # exactly half
        ([30.0, 1.0, -20.0], 4.0, DIRECTION),  # the interval holds 0
        ([-1.0, 0.5, 0.2], 4.0, NOT),
        ([0.0, 0.0, 0.0], None, NOT),
        ([-10.0, -11.0, -12.0], 5.0, NOT),
    ],
)
def test_the_verdict_rule(values, published, expected):
    assert verdict(paired_difference(values), published) == expected


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.floats(0, 20))
def test_a_reproduced_check_is_never_so_with_its_sign_turned(values, published):
    if verdict(paired_difference(values), published) == REPRODUCED:
        assert verdict(paired_difference([-v for v in values]), published) == NOT


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([REPRODUCED, REPRODUCED], REPRODUCED),
        ([REPRODUCED, DIRECTION], DIRECTION),
        ([REPRODUCED, DIRECTION, NOT], DIRECTION),
        ([REPRODUCED, NOT], NOT),  # half is not more than half
        ([DIRECTION, NOT, NOT], NOT),
        ([NOT], NOT),
    ],
)
def test_the_verdict_on_a_claim(verdicts, expected):
    assert overall(verdicts) == expected


def test_differences_that_cancel_have_no_direction():
    cancelled = sum([-0.3, 0.4, -0.1]) / 3
    assert abs(cancelled) < 1e-15
    assert verdict({"low": -1.0, "mean": abs(cancelled) + 1e-17}, 2.64) == "not reproduced"


def test_values_that_are_not_finite_have_no_interval():
    """Such as the median distance of networks that an attack mostly fails on."""
    inf, nan = math.inf, math.nan
    once = paired_difference([inf, 0.1, 0.2])
    assert (once["mean"], once["sd"], once["low"], verdict(once, None)) == (inf, None, None, "direction only")
    assert verdict(paired_difference([-inf, 0.1, 0.2]), None) == "not reproduced"
    for values in ([inf, -inf, 0.1], [nan, 0.1, 0.2]):
        both = paired_difference(values)
        assert math.isnan(both["mean"])
        assert (both["low"], verdict(both, None)) == (None, "not reproduced")
