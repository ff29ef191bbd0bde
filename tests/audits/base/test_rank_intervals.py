"""Places against sorting by hand, and how often their intervals contain the true ones."""

import math

import numpy as np
import pytest
import torch

from buttress.audits.base.median_places import median_places
from buttress.audits.base.rank_intervals import above, may_be_first, places, shown_above
from buttress.audits.base.ranking import ranking

BY = {"means": lambda values, seed: ranking(values, seed).places(), "medians": median_places}
DRAWS = 40
MOST = 6  # of 40 draws at 5 %, with a probability of 99.5 %


def by_chance(kind, rows, count, seed):
    """(rows, count) values of ``rows`` things that are alike in law; NaN and infinite ones at random."""
    random = torch.Generator().manual_seed(seed)
    noise, base = (torch.randn(r, count, generator=random) for r in (rows, 1))
    values = base + 0.3 * noise
    if kind == "doses":  # tenths, most of which are alike for all
        values = (10 * torch.rand(1, count, generator=random) + noise.round().clamp(-1, 1)).round() / 10
    elif kind == "undefined":
        values[torch.rand(rows, count, generator=random) < 0.3] = math.nan
    elif kind == "infinite":
        values[values > 0.5] = math.inf
    elif kind == "other spreads":
        values = base + torch.linspace(0.1, 2, rows)[:, None] * noise
    return values


@pytest.mark.parametrize(("rows", "count"), [(2, 6), (12, 64)])
@pytest.mark.parametrize("kind", ["correlated", "doses", "undefined", "infinite", "other spreads"])
@pytest.mark.parametrize("by", BY)
def test_of_equal_things_each_may_have_every_place(by, kind, rows, count):
    """Of all draws at most 5 % may exclude any place of any thing."""
    if (by, kind) == ("means", "infinite"):
        return
    wrong = 0
    for seed in range(DRAWS):
        found = BY[by](by_chance(kind, rows, count, seed), seed)
        wrong += found["low"] != [1] * rows or found["high"] != [rows] * rows
    assert wrong <= MOST


@pytest.mark.parametrize("step", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("by", BY)
def test_the_true_places_are_in_the_intervals_and_clear_ones_are_found(by, step):
    """Twelve things, each a step below the one before; with a large step every place is known."""
    wrong = known = 0
    for seed in range(DRAWS):
        found = BY[by](by_chance("correlated", 12, 64, seed) - step * torch.arange(12.0)[:, None], seed)
        ends = list(zip(found["low"], found["high"], strict=True))
        wrong += not all(low <= true <= high for true, (low, high) in enumerate(ends, 1))
        known += ends == [(true, true) for true in range(1, 13)]
    assert wrong <= MOST
    assert step < 1 or known > DRAWS - MOST


@pytest.mark.parametrize("by", BY)
def test_one_thing_that_stands_out_is_found_among_equal_ones(by):
    found = 0
    for seed in range(DRAWS):
        values = by_chance("correlated", 12, 64, seed)
        values[5] += 0.8
        found += may_be_first(BY[by](values, seed)) == [5]
    assert found >= DRAWS - MOST


@pytest.mark.parametrize("differ", range(1, 9))
@pytest.mark.parametrize("step", [0.1, 0.3])
def test_inputs_that_differ_all_one_way_count_as_in_the_sign_test(differ, step):
    """2 / 2^k is below 5 % from k = 6 on, whatever the others are."""
    one = torch.rand(33, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[:differ] -= step
    low = ranking(torch.stack([one, other]), 0).places()["low"]
    assert low == ([1, 2] if differ >= 6 else [1, 1])


@pytest.mark.parametrize("by", BY)
def test_things_known_for_few_inputs_are_not_told_apart(by):
    """However many inputs the other has: 5 that both have are too few."""
    values = torch.stack([torch.full((64,), math.nan), torch.zeros(64)])
    values[0, :5] = torch.tensor([6.0, 7.0, 5.0, 6.0, 6.0])
    assert BY[by](values, 0) == {"rank": [1, 2], "low": [1, 1], "high": [2, 2]}
    values[0, :16] = 6 + torch.rand(16, generator=torch.Generator().manual_seed(0))
    assert BY[by](values, 0) == {"rank": [1, 2], "low": [1, 2], "high": [1, 2]}
    values[1, :16] = math.nan  # no input in common
    assert BY[by](values, 0) == {"rank": [1, 2], "low": [1, 1], "high": [2, 2]}


@pytest.mark.parametrize("by", BY)
def test_what_every_input_says_alike_is_certain_and_fewer_than_six_tell_nothing(by):
    values = torch.arange(16.0).expand(2, 16) + torch.tensor([[0.0], [20.0]])
    assert BY[by](values, 0) == {"rank": [2, 1], "low": [2, 1], "high": [2, 1]}
    assert BY[by](values[:, :5], 0) == {"rank": [2, 1], "low": [1, 1], "high": [2, 2]}


@pytest.mark.parametrize("by", BY)
def test_undefined_things_have_no_place(by):
    values = torch.tensor([[1.0] * 6, [math.nan] * 6, [2.0] * 6])
    assert BY[by](values, 0) == {"rank": [2, None, 1], "low": [2, None, 1], "high": [2, None, 1]}
    assert BY[by](values[1:2], 0) == {"rank": [None], "low": [None], "high": [None]}
    nothing = {"rank": [None] * 2, "low": [None] * 2, "high": [None] * 2}
    assert BY[by](torch.zeros(2, 0), 0) == nothing
    assert BY[by](torch.zeros(0, 6), 0) == {"rank": [], "low": [], "high": []}


def test_infinite_medians_have_a_place():
    values = torch.tensor([[math.inf] * 8, [1.0] * 8, [-math.inf] * 8, [math.inf] * 8])
    assert median_places(values, 0) == {"rank": [1, 3, 4, 1], "low": [1, 3, 4, 1], "high": [2, 3, 4, 2]}


def test_means_and_medians_give_the_order_of_sorting_and_equals_share_a_place():
    values = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0], [0.0, 1.0, 9.0], [5.0, 5.0, 0.0]])
    assert ranking(values, 0).places()["rank"] == [4, 1, 1, 1]  # means 2, 10/3, 10/3 and 10/3
    assert median_places(values, 0)["rank"] == [3, 1, 4, 1]


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_medians_are_numpys(count):
    """The mean of the middle two of an even number."""
    values = torch.rand(30, count, generator=torch.Generator().manual_seed(count)).round(decimals=1)
    values[torch.rand(30, count, generator=torch.Generator().manual_seed(1)) < 0.2] = math.inf
    medians = torch.from_numpy(np.median(values.double().numpy(), 1))
    assert median_places(values, 0)["rank"] == (1 + above(medians).sum(0)).tolist()


def test_places_follow_from_what_is_shown():
    """By hand: a above c, b above c, and d, of which nothing is known."""
    figures = torch.tensor([4.0, 4.0, 1.0, 2.0, math.nan])
    shown = torch.zeros(5, 5, dtype=torch.bool)
    shown[0, 2] = shown[1, 2] = True
    found = places(figures, shown)
    assert found == {"rank": [1, 1, 4, 3, None], "low": [1, 1, 3, 1, None], "high": [3, 3, 4, 4, None]}
    assert may_be_first(found) == [0, 1, 3]


def test_rounding_is_no_difference_and_infinity_is_above_all():
    figures = torch.tensor([1.0, 1.0 + 1e-7, math.inf, math.inf, math.nan])
    assert above(figures).nonzero().tolist() == [[2, 0], [2, 1], [3, 0], [3, 1]]


def test_what_is_shown_does_not_hang_on_the_order_of_the_things_or_on_how_many_signs_are_drawn_at_once(monkeypatch):
    values = by_chance("undefined", 6, 40, 0).double() + torch.arange(6.0)[:, None] / 5
    known, figures = ~values.isnan(), values.nanmean(1)
    influence = (values - figures[:, None]).nan_to_num() * (40 / known.sum(1, keepdim=True))
    shown = shown_above(figures, influence, known, 0)
    assert shown.any()
    assert not shown.all()
    turned = shown_above(figures.flip(0), influence.flip(0), known.flip(0), 0)
    assert turned.flip(0, 1).equal(shown)
    monkeypatch.setattr("buttress.audits.base.rank_intervals._AT_ONCE", 1 << 30)
    assert shown_above(figures, influence, known, 0).equal(shown)
