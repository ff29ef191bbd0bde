"""Orders of classes against scipy's correlations, and gains that are known."""

import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from buttress.audits.base.class_agreement import agreement, gain


def table(*robust, count=40):
    """(N,) classes and, for each attack, (N,) bool with so many of each class's ``count`` inputs robust."""
    y = torch.arange(len(robust[0])).repeat_interleave(count)
    stands = [torch.cat([torch.arange(count) < hits for hits in by_class]) for by_class in robust]
    return y, *stands


@pytest.mark.parametrize(
    "robust",
    [([3, 10, 20, 30], [1, 9, 15, 40]), ([3, 10, 20, 30], [9, 1, 40, 15]), ([5, 5, 20, 30], [40, 12, 12, 3])],
)
def test_correlations_are_those_of_scipy(robust):
    found = agreement(*table(*robust), seed=0)
    assert found["spearman"]["value"] == pytest.approx(spearmanr(*robust).statistic)
    assert found["kendall"]["value"] == pytest.approx(kendalltau(*robust).statistic)
    for name in ("spearman", "kendall"):
        assert -1 <= found[name]["low"] <= found[name]["high"] <= 1


def test_random_orders_against_scipy():
    random = torch.Generator().manual_seed(0)
    for _ in range(10):
        robust = torch.randint(0, 41, (2, 7), generator=random).tolist()
        found = agreement(*table(*robust), seed=0)
        assert found["kendall"]["value"] == pytest.approx(kendalltau(*robust).statistic)
        assert found["spearman"]["value"] == pytest.approx(spearmanr(*robust).statistic)


def test_the_same_attack_agrees_with_itself_in_every_resample():
    y, stands = table([3, 10, 20, 30])
    found = agreement(y, stands, stands, seed=0)
    assert found["spearman"] == found["kendall"] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    assert (found["worst"], found["worst_share"]) == (True, 1.0)


def test_the_interval_is_wide_where_classes_are_alike_and_narrow_where_they_are_not():
    y, *alike = table([19, 20, 21, 22], [20, 19, 22, 21])
    wide = agreement(y, *alike, seed=0)
    assert wide["spearman"]["low"] < 0.3
    assert wide["worst_share"] < 0.95
    y, *apart = table([2, 14, 26, 38], [1, 13, 25, 37])
    assert agreement(y, *apart, seed=0)["spearman"]["low"] > 0.7


def test_the_worst_class_may_tie():
    assert agreement(*table([3, 3, 20], [20, 3, 30]), seed=0)["worst"] is True
    assert agreement(*table([3, 4, 20], [20, 3, 30]), seed=0)["worst"] is False


def test_what_has_no_order():
    constant = agreement(*table([40, 40, 40], [3, 10, 20]), seed=0)
    assert constant["spearman"] == constant["kendall"] == {"value": None, "low": None, "high": None}
    assert agreement(*table([3, 10], [3, 10]), seed=0) is None


def test_a_gain_on_vulnerable_classes():
    """Of 40, alternately in two halves: the lower classes lose 8 and 12, the upper ones 4 and 0."""
    y = torch.arange(4).repeat_interleave(40)
    weaker = torch.cat([torch.arange(40) < hits for hits in (20, 22, 36, 40)])
    stronger = torch.cat([torch.arange(40) < hits for hits in (12, 10, 32, 40)])
    found = gain(y, weaker, stronger, seed=0)
    assert found["vulnerable"] == pytest.approx((8 + 12) / 80)
    assert found["others"] == pytest.approx((4 + 0) / 80)
    assert found["difference"] == pytest.approx(0.2)
    assert 0.05 < found["low"] < 0.2 < found["high"] < 0.35
    middle = torch.cat([y, torch.full((40,), 4)])  # a fifth class between them, whose gain does not count
    half = torch.arange(40) < 30
    assert gain(middle, torch.cat([weaker, half]), torch.cat([stronger, half & False]), seed=0)[
        "difference"
    ] == pytest.approx(0.2)


def test_no_gain_is_seen_where_classes_differ_by_chance_alone():
    """Equal classes, outcomes drawn: halved by the inputs that are measured, the low ones would seem to lose less."""
    random, found = torch.Generator().manual_seed(0), []
    y = torch.arange(10).repeat_interleave(20)
    for _ in range(200):
        weaker = torch.rand(200, generator=random) < 0.6
        found.append(gain(y, weaker, weaker & (torch.rand(200, generator=random) < 0.5), seed=0)["difference"])
    mean, error = torch.tensor(found).mean(), torch.tensor(found).std() / 200**0.5
    assert abs(mean) < 3 * error
    assert gain(torch.arange(10), torch.ones(10).bool(), torch.ones(10).bool(), seed=0) is None
