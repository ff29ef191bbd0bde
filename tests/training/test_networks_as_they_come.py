"""Whatever a network does with its inputs, and whatever the caller has switched on, training gives the same bits."""

import copy

import torch
from torch import nn

from buttress.defences import TRADES, AdversarialTraining


class Plain(nn.Module):
    """Inputs to [-2, 2], then the network."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner((x - 0.5) / 0.25)


class InPlace(Plain):
    """The same, written over its input."""

    def forward(self, x):
        return self.inner(x.sub_(0.5).div_(0.25))


def test_in_place_networks_and_ambient_settings_give_the_same_weights(mlp, points, train, attack):
    inner, data = mlp(), points
    for defence in (AdversarialTraining(attack), TRADES(threat=attack.threat)):
        plain, other = Plain(copy.deepcopy(inner)), InPlace(copy.deepcopy(inner))
        expected = train(plain, data, defence)
        torch.set_default_dtype(torch.float64)
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"), torch.no_grad():
                trained = train(other, data, defence)
        finally:
            torch.set_default_dtype(torch.float32)
        assert trained.history == expected.history
        for mine, reference in zip(other.parameters(), plain.parameters(), strict=True):
            assert torch.equal(mine, reference)
