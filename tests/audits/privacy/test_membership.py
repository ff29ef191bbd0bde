"""ROC and thresholds on scores that are made for it."""

import math

import pytest
import torch
from sklearn.metrics import roc_curve

from buttress.audits.privacy.membership import Curve, inferred


def normal(count, mean=0.0, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def test_the_curve_is_that_of_scikit_learn():
    members, others = normal(60, 1.0).round(decimals=1), normal(50, seed=1).round(decimals=1)  # with ties
    curve = Curve.of(members, others)
    labels = [1] * 60 + [0] * 50
    false, true, thresholds = roc_curve(labels, torch.cat([members, others]).numpy(), drop_intermediate=False)
    assert curve.false_positives.tolist() == pytest.approx(false)
    assert curve.true_positives.tolist() == pytest.approx(true)
    assert curve.thresholds[1:].tolist() == pytest.approx(thresholds[1:])


def test_separate_scores_are_told_apart_and_equal_ones_are_not():
    apart = inferred(torch.arange(10, 20.0), torch.arange(0, 10.0), 0)
    assert (apart["advantage"], apart["accuracy"], apart["auroc"], apart["optimistic"]) == (1, 1, 1, 1)
    same = inferred(torch.ones(10), torch.ones(10), 0)
    assert (same["advantage"], same["accuracy"], same["auroc"]) == (0, 0.5, 0.5)
    assert same["low"] < 0 < same["high"]
    infinite = inferred(torch.full((10,), math.inf), torch.full((10,), -math.inf), 0)
    assert infinite["advantage"] == 1


def test_the_advantage_of_shifted_normals_is_known():
    """The best threshold is in the middle: the advantage is 2 Phi(d / 2) - 1, for d = 1 0.3829."""
    found = inferred(normal(20_000, 1.0), normal(20_000, seed=1), 0)
    assert found["advantage"] == pytest.approx(0.3829, abs=0.015)
    assert found["low"] < 0.3829 < found["high"]
    assert found["threshold"] == pytest.approx(0.5, abs=0.15)
    assert found["at"]["0.01"] == pytest.approx(0.0924, abs=0.015)  # 1 - Phi(2.326 - 1)


def test_nothing_is_found_where_nothing_is_but_for_the_optimist():
    """Over many draws of equal distributions the split figure is 0 in the mean; the other one is always above."""
    found = [inferred(normal(40, seed=2 * k), normal(40, seed=2 * k + 1), k) for k in range(200)]
    mean = sum(one["advantage"] for one in found) / len(found)
    assert abs(mean) < 0.03
    assert sum(one["optimistic"] for one in found) / len(found) > 0.12
    assert all(one["optimistic"] >= 0 for one in found)


def test_rates_that_so_few_others_cannot_resolve_are_not_told():
    found = inferred(normal(99, 1.0), normal(99), 0)
    assert found["at"] == {"0.001": None, "0.01": None}
    found = inferred(torch.tensor([5.0, 3.0, 1.0] * 40), torch.arange(100.0) / 50 + 2, 0)
    assert found["at"]["0.01"] == pytest.approx(1 / 3)  # only 5 is above all but one of the others


def test_the_curve_that_is_reported_is_short_and_complete():
    points = inferred(normal(5000, 1.0), normal(5000, seed=1), 0)["curve"]
    assert points[0] == [0, 0]
    assert points[-1] == [1, 1]
    assert len(points) < 250
    assert points == sorted(points)
