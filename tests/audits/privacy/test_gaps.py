"""The difference of two shares, and how often its interval holds the true one."""

import pytest
import torch

from buttress.audits.base.statistics import interval
from buttress.audits.privacy.gaps import difference


def hits(right, count):
    return torch.arange(count) < right


def test_the_interval_reaches_as_far_as_those_of_the_shares_together():
    found = difference(hits(90, 100), hits(70, 100))
    (_, high), (low, _) = interval(90, 100), interval(70, 100)
    assert found["difference"] == pytest.approx(0.2)
    assert found["high"] == pytest.approx(0.2 + ((high - 0.9) ** 2 + (0.7 - low) ** 2) ** 0.5)
    mirrored = difference(hits(70, 100), hits(90, 100))
    assert mirrored["low"] == pytest.approx(-found["high"])
    assert mirrored["high"] == pytest.approx(-found["low"])


def test_equal_shares_differ_by_nothing_and_extremes_stay_shares():
    assert difference(hits(5, 10), hits(50, 100))["difference"] == 0
    extreme = difference(hits(10, 10), hits(0, 10))
    assert extreme["difference"] == extreme["high"] == 1
    assert 0 < extreme["low"] < 1


def test_it_holds_the_true_difference_in_95_percent_of_draws_or_more():
    random = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(300):
        first, second = (torch.rand(60, generator=random) < share for share in (0.9, 0.75))
        found = difference(first, second)
        held += found["low"] <= 0.15 <= found["high"]
    assert held / 300 > 0.94
