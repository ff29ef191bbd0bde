"""Exact bounds against scipy's own, and against what they promise."""

import math

import pytest
from scipy.stats import binom, binomtest

from buttress.certificates.smoothing import lower_bound, majority_p_value, upper_bound


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize(("successes", "count"), [(0, 10), (1, 10), (7, 10), (10, 10), (93, 100), (9_990, 10_000)])
def test_bounds_are_those_of_clopper_and_pearson(successes, count, alpha):
    for bound, side in ((lower_bound, "greater"), (upper_bound, "less")):
        test = binomtest(successes, count, alternative=side).proportion_ci(1 - alpha, method="exact")
        wanted = test.low if side == "greater" else test.high
        assert bound(successes, count, alpha) == pytest.approx(wanted, rel=1e-9)


def test_all_successes_have_a_closed_form():
    assert lower_bound(50, 50, 0.001) == pytest.approx(0.001 ** (1 / 50), rel=1e-12)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.77, 0.99])
def test_the_bound_is_above_the_probability_no_more_often_than_promised(p):
    """The exact chance, over all counts."""
    chance = sum(binom.pmf(k, 60, p) for k in range(61) if lower_bound(k, 60, 0.05) > p)
    assert chance <= 0.05


@pytest.mark.parametrize(("first", "second"), [(10, 0), (7, 3), (5, 5), (60, 40), (3, 7), (1_000, 900)])
def test_the_test_of_a_majority_is_the_two_sided_binomial_test(first, second):
    wanted = binomtest(first, first + second, 0.5).pvalue
    assert majority_p_value(first, second) == pytest.approx(wanted, rel=1e-9)


def test_no_votes_are_no_majority():
    assert majority_p_value(0, 0) == 1.0
    assert math.isclose(majority_p_value(1, 1), 1.0)
