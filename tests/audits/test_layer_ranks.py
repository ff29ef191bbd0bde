"""The places of layers against sorting by hand what was measured of them."""

import math

import pytest
import torch

from buttress.audits.layer_ranks import RANKS, layer_ranks
from buttress.layers import LayerPatching, LayerProfile, LayerTolerance

NAMES = ["a", "b", "c"]


def profile(values, measure="relative_error", change=1.0):
    values = torch.tensor(values)[None]
    inputs = torch.full(values.shape[::2], change)
    return LayerProfile.of(NAMES, ["pgd"], measure, values, inputs, predecessors=[-1, 0, 0], crossed=[True] * 3)


def of(*, values=((1.0, 1.0), (3.0, 3.0), (2.0, 2.0)), searched=None, patched=None):
    return layer_ranks((profile(values), profile(values, "centred")), searched, patched, 0)


def test_large_displacements_and_gains_come_first():
    found = of()
    assert found["relative_error"]["rank"] == found["centred"]["rank"] == [3, 1, 2]
    assert found["gain of centred"]["rank"] == [3, 1, 2]  # 1 / 1, 3 / 1 and 2 / 1: a feeds both
    doubled = of(values=((4.0, 4.0), (3.0, 3.0), (2.0, 2.0)))
    assert doubled["gain of relative_error"]["rank"] == [1, 2, 3]  # 4, 3 / 4 and 2 / 4
    assert set(found) <= set(RANKS)


def test_small_tolerances_and_margins_come_first_and_infinite_ones_last():
    rho = torch.tensor([[math.inf] * 7, [0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.0], [math.nan] * 7])
    wrong = torch.tensor([False] * 6 + [True])
    searched = LayerTolerance(NAMES, [True] * 3, rho, torch.tensor([[1.0], [0.1], [1.0]]).expand(3, 7), wrong, wrong)
    found = of(searched=searched)
    assert found["tolerance"] == found["margin"] == {"rank": [2, 1, None], "low": [2, 1, None], "high": [2, 1, None]}


def test_layers_that_need_little_come_first():
    right = torch.tensor([[[0.0] * 6, [1.0] * 6], [[1.0] * 6, [1.0] * 6]])
    few = torch.tensor([[1.0] + [0.0] * 5, [0.0] * 6])
    patched = LayerPatching(NAMES[:2], [True] * 2, [0.5, 1.0], right, few, [], 0, {"c": "is not called"}, 9)
    found = of(patched=patched)
    assert found["recovery"]["rank"] == [2, 1, None]
    assert found["restored"] == {"rank": [1, 1, None], "low": [1, 1, None], "high": [2, 2, None]}
    assert found["few"]["rank"] == [1, 2, None]
    assert (found["few"]["low"], found["few"]["high"]) == ([1, 1, None], [2, 2, None])


@pytest.mark.parametrize("measure", ["relative_error_batch", "cka"])
def test_figures_of_whole_batches_have_no_places(measure):
    values = ((1.0, 1.0), (3.0, 3.0), (2.0, 2.0))
    assert set(layer_ranks((profile(values, measure), profile(values, "centred")), None, None, 0)) == {
        "centred",
        "gain of centred",
    }
