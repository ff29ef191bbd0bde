"""Places against sorting, and their intervals against what resampling must give."""

import math

import numpy as np
import pytest
import torch

from buttress.audits.base.rank_intervals import means, medians, ranks


def test_places_are_those_of_sorting():
    values = torch.tensor([[1.0, 3.0], [5.0, 5.0], [0.0, 1.0], [5.0, 5.0]])
    assert ranks(2, means(values), 0)["rank"] == [3, 1, 4, 1]
    assert ranks(2, means(values), 0, largest_first=False)["rank"] == [2, 3, 1, 3]


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_medians_are_numpys(count):
    values = torch.rand(4, count, generator=torch.Generator().manual_seed(count))
    values[0, 0] = math.inf
    values[1, :1] = math.nan
    values[2] = math.nan
    weights = torch.randint(3, (5, count), generator=torch.Generator().manual_seed(1)).double()
    found = medians(values)(weights)
    for b, repeats in enumerate(weights.long()):
        for k, row in enumerate(values):
            sample = row.repeat_interleave(repeats)
            sample = sample[~sample.isnan()].double().numpy()
            expected = np.median(sample) if len(sample) else math.nan
            assert float(found[b, k]) == pytest.approx(expected, nan_ok=True)


def test_what_every_input_says_alike_is_certain():
    values = torch.arange(18.0).view(3, 6) + torch.tensor([0.0, 10.0, 20.0])[:, None]
    assert ranks(6, means(values), 0) == {"rank": [3, 2, 1], "low": [3, 2, 1], "high": [3, 2, 1]}


def test_fewer_than_six_inputs_tell_nothing():
    values = torch.tensor([[1.0] * 5, [2.0] * 5, [math.nan] * 5])
    assert ranks(5, means(values), 0) == {"rank": [2, 1, None], "low": [1, 1, None], "high": [2, 2, None]}


def test_things_that_are_alike_may_have_any_place():
    values = torch.rand(3, 50, generator=torch.Generator().manual_seed(2))
    found = ranks(50, means(values), 0)
    assert (found["low"], found["high"]) == ([1, 1, 1], [3, 3, 3])


def test_infinite_figures_have_a_place_and_undefined_ones_none():
    values = torch.tensor([[math.inf] * 6, [math.nan] * 6, [1.0] * 6, [-math.inf] * 6])
    found = ranks(6, medians(values), 0)
    assert found["rank"] == [1, None, 2, 3]
    assert found["low"] == found["high"] == found["rank"]


def test_without_inputs_nothing_has_a_place():
    assert ranks(0, means(torch.zeros(2, 0)), 0) == {"rank": [None] * 2, "low": [None] * 2, "high": [None] * 2}


def test_the_interval_has_the_bootstraps_coverage_of_a_share():
    """Of two things one is higher on 5 of 8 inputs by as much as it is lower on the others: 1 or 2 are both likely."""
    higher = torch.tensor([1.0] * 5 + [-1.0] * 3)
    found = ranks(8, means(torch.stack([higher, torch.zeros(8)])), 0)
    assert found["rank"] == [1, 2]
    assert (found["low"], found["high"]) == ([1, 1], [2, 2])
