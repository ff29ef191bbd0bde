"""The features behind the answer are those that the last layer reads."""

import pytest
import torch
from torch import nn

from buttress.layers.features import INPUTS, penultimate


def test_they_are_what_the_last_linear_layer_reads(nets):
    model = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)), 1).eval()
    x = torch.rand(7, 1, 6, 6)
    features, name = penultimate(model, x, batch_size=3)
    assert name == "2"
    torch.testing.assert_close(features, model[:3](x))


def test_an_activation_that_is_the_answer_is_not(nets):
    model = nets.seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.ReLU()), 1).eval()
    assert penultimate(model, torch.rand(4, 3))[1] == "1"


@pytest.mark.parametrize("count", [1, 5])
def test_a_network_without_any_has_its_inputs(nets, count):
    model, x = nets.linear([[1.0, 2.0], [0.0, 1.0]]), torch.rand(count, 2)
    features, name = penultimate(model, x)
    assert name == INPUTS
    assert torch.equal(features, x)


def test_wide_maps_are_averaged(nets):
    model = nets.seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
        )
    ).eval()
    x = torch.rand(2, 1, 50, 50)
    features, _ = penultimate(model, x)
    torch.testing.assert_close(features, model[:2](x).flatten(2).mean(2))
