import itertools
import math

import pytest
import torch
from scipy.stats import binomtest

from buttress.audits.base.statistics import accuracy, bootstrap, interval, median, paired


@pytest.mark.parametrize("count", [1, 2, 24, 997])
def test_the_ends_of_an_interval_are_those_that_a_search_finds(count):
    for successes in {0, min(1, count), count // 3, count}:
        expected = binomtest(successes, count).proportion_ci(0.95, method="exact")
        assert interval(successes, count) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_an_accuracy_comes_with_its_interval():
    found = torch.tensor([True] * 13 + [False] * 27)
    low, high = interval(13, 40)
    assert accuracy(found) == {"accuracy": 13 / 40, "low": low, "high": high}
    assert low < 13 / 40 < high


def test_a_bootstrap_of_the_mean_is_that_of_the_central_limit():
    values = torch.randn(2500, generator=torch.Generator().manual_seed(3)).double()
    low, high = bootstrap(2500, lambda index: values[index].mean(1), seed=1)
    half = 1.96 * float(values.std()) / 50
    assert low == pytest.approx(float(values.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.1 * half)


def test_a_bootstrap_of_three_inputs_is_that_of_all_their_resamples():
    """27 equally likely resamples: the 2.5 % points of their means are the extremes, which have chance 1/27 each."""
    values = torch.tensor([1.0, 2.0, 6.0]).double()
    means = sorted(sum(rows) / 3 for rows in itertools.product(values.tolist(), repeat=3))
    assert bootstrap(3, lambda index: values[index].mean(1), seed=0) == (means[0], means[-1])


def test_the_same_seed_draws_the_same_and_another_one_others():
    values = torch.randn(200, generator=torch.Generator().manual_seed(3))
    one, again, other = (bootstrap(200, lambda index: values[index].mean(1), seed) for seed in (4, 4, 5))
    assert one == again != other


def test_chunks_do_not_change_what_is_drawn(monkeypatch):
    values = torch.randn(50, generator=torch.Generator().manual_seed(3))
    whole = bootstrap(50, lambda index: values[index].mean(1), 0)
    monkeypatch.setattr("buttress.audits.base.statistics._AT_ONCE", 50 * 7)
    assert bootstrap(50, lambda index: values[index].mean(1), 0) == whole


def test_paired_differences_count_who_differs():
    first = torch.tensor([1, 1, 1, 1, 0, 0, 0, 1, 1, 1] * 20).bool()
    second = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0, 0, 0] * 20).bool()
    found = paired(first, second, seed=0)
    assert (found["gained"], found["lost"]) == (20, 80)
    assert found["difference"] == pytest.approx(-0.3)
    assert found["low"] < -0.3 < found["high"] < 0
    tail = sum(math.comb(100, k) for k in range(21)) / 2**100
    assert found["p"] == pytest.approx(2 * tail)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * math.sqrt((0.5 - 0.09) / 200), rel=0.1)


def test_equal_ones_do_not_differ():
    same = torch.tensor([True, False, True])
    told = {"difference": 0.0, "low": 0.0, "high": 0.0, "gained": 0, "lost": 0, "p": 1.0}
    assert paired(same, same, seed=0) == told


@pytest.mark.parametrize(
    ("values", "middle"),
    [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5), ([1.0, math.inf, math.inf], math.inf), ([0.5], 0.5)],
)
def test_medians(values, middle):
    assert median(torch.tensor(values), 0)["median"] == middle


def test_a_median_where_many_were_never_found_has_an_open_interval():
    values = torch.cat([torch.arange(1.0, 22.0), torch.full((19,), math.inf)])
    found = median(values, 0)
    assert found["median"] == 20.5
    assert 10 < found["low"] < 20.5
    assert found["high"] == math.inf


def test_the_interval_of_a_median_is_near_that_of_the_order_statistics():
    """Binomial ranks: with 401 inputs the 95 % interval runs from about the 181st to the 221st."""
    values = torch.arange(401.0)[torch.randperm(401, generator=torch.Generator().manual_seed(0))]
    found = median(values, 2)
    assert found["median"] == 200
    assert found["low"] == pytest.approx(200 - 0.98 * math.sqrt(401), abs=3)
    assert found["high"] == pytest.approx(200 + 0.98 * math.sqrt(401), abs=3)
