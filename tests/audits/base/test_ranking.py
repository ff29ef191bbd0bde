"""Rankings: equal figures are told to be equal at the promised rate, different ones apart, against exact answers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from buttress.audits.base.rank_intervals import FEWEST
from buttress.audits.base.ranking import joined, ranking, tied_shares


def drawn(means, count=200, seed=0, spread=1.0):
    """(R, count) independent normal values with these means."""
    random = torch.Generator().manual_seed(seed)
    return torch.tensor(means)[:, None] + spread * torch.randn(len(means), count, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("rows", [2, 6])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 10, 30])
def test_of_equal_figures_the_error_rate_holds_for_all_together_and_for_few_inputs(rows, count):
    """At most 5 % of rankings of equal figures name fewer than all: of 100 at most 11 (the binomial's 0.5 % quantile).

    Their values differ tenfold in spread, which no test of exchanged rows would bear.
    """
    spread = torch.logspace(0, 1, rows, dtype=torch.float64)[:, None]
    found = [ranking(spread * drawn([0.0] * rows, count, seed), seed).tied() for seed in range(100)]
    wrong = sum(len(tied) < rows for tied in found)
    assert wrong <= 11
    assert count >= FEWEST or wrong == 0


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 60))
def test_two_shares_are_told_apart_as_by_mcnemars_exact_test(more, less, both):
    """With the signs drawn, the p-value is known within a hundredth."""
    count = more + less + both + 1
    rows = torch.zeros(2, count)
    rows[0, :more], rows[1, more : more + less], rows[:, more + less : -1] = 1, 1, 1
    p = binomtest(more, more + less).pvalue if more + less else 1.0
    if abs(p - 0.05) > 0.02 and more >= less:
        assert ranking(rows, 0).tied() == ([0] if p < 0.05 else [0, 1])


def test_of_one_input_nothing_is_known():
    found = ranking(torch.tensor([[1.0], [0.0]]), 0, lambda means: means / means.sum(1, keepdim=True))
    assert found.values.tolist() == [1.0, 0.0]
    assert found.tied() == [0, 1]
    assert bool(torch.cat([found.low, found.high]).isnan().all())


def test_what_differs_by_many_standard_errors_is_told_apart():
    found = ranking(drawn([0.0, 2.0, 1.9, -3.0], spread=0.1), 0)
    assert found.order == [1, 2, 0, 3]
    assert found.tied() == [1]
    assert found.tied(2) == [1, 2]  # not below the second
    assert found.facts("abcd")["first"] == ["b"]


def test_a_small_difference_counts_where_every_input_has_it():
    """The pairs decide, not the spread over inputs: 0.01 below in each of 50 inputs that differ by 1."""
    one = drawn([0.0], 50)[0]
    assert ranking(torch.stack([one, one - 0.01 - 1e-4 * torch.rand(50)]), 0).tied() == [0]
    assert ranking(torch.stack([one, one - 1e-9]), 0).tied() == [0, 1]  # float32 rounds more


@pytest.mark.parametrize("count", [2, 5, 400])
def test_intervals_of_means_are_students(count):
    values = drawn([0.0, 5.0], count)
    found, known = ranking(values, 0), ttest_1samp(values, 0, axis=1).confidence_interval(0.95)
    assert found.low.tolist() == pytest.approx(known.low.tolist())
    assert found.high.tolist() == pytest.approx(known.high.tolist())


def test_a_figure_that_hangs_on_one_input_is_told_from_none():
    values = torch.zeros(2, 30)
    values[0, :29], values[0, 29] = math.nan, 100.0
    found = ranking(values, 0)
    assert (found.order, found.tied()) == ([0, 1], [0, 1])
    assert found.low.isnan().tolist() == [True, False]


def test_undefined_inputs_are_left_out_and_undefined_rows_have_no_place():
    values = torch.tensor([[1.0, math.nan, 3.0], [math.nan] * 3, [0.0, 0.0, 0.0]]).repeat(1, 20)
    found = ranking(values, 0)
    assert found.values.tolist() == pytest.approx([2, math.nan, 0], nan_ok=True)
    assert (found.order, found.tied()) == ([0, 2], [0])
    assert ranking(values[1:2], 0).tied() == []


def test_figures_that_follow_from_means_are_ranked_by_themselves():
    """Ratios to the third row: 4 and 1 of 2."""
    values = drawn([4.0, 1.0, 2.0], spread=0.01)
    found = ranking(values, 0, lambda means: means[:, :2] / means[:, 2:])
    assert found.values.tolist() == pytest.approx([2, 0.5], abs=0.01)
    assert found.tied() == [0]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(0, 5))
def test_the_highest_is_tied_with_itself_and_the_order_does_not_hang_on_the_rows(means, seed):
    values = drawn([mean / 10 for mean in means], 30)
    found, turned = ranking(values, seed), ranking(values.flip(0), seed)
    assert found.order[0] in found.tied()
    assert sorted(len(means) - 1 - k for k in turned.tied()) == sorted(found.tied())


def test_shares_of_different_inputs_by_fishers_test():
    """0 of 3 and 3 of 3: p = 1/20, which three others exceed; 0 of 30 and 30 of 30 leaves no doubt."""
    assert tied_shares([(0, 3), (3, 3)], 0) == [0, 1]
    assert tied_shares([(0, 30), (30, 30), (1, 30)], 0) == [0, 2]
    assert tied_shares([(5, 9)], 0) == [0]


def test_names_in_a_sentence():
    assert [joined("a"), joined("ab"), joined("abc")] == ["a", "a and b", "a, b and c"]
    assert joined("abcdefghi") == "a, b, c, d, e, f and 3 more"
