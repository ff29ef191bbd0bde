"""Whatever a network does with its inputs, and whatever the caller has switched on, training gives the same bits."""

import copy

import torch
from tests.networks import InPlace, Plain, everything_switched_on

from buttress.defences import TRADES, AdversarialTraining


def test_in_place_networks_and_ambient_settings_give_the_same_weights(mlp, points, train, attack):
    inner, data = mlp(), points
    for defence in (AdversarialTraining(attack), TRADES(threat=attack.threat)):
        plain, other = Plain(copy.deepcopy(inner)), InPlace(copy.deepcopy(inner))
        expected = train(plain, data, defence)
        with everything_switched_on():
            trained = train(other, data, defence)
        assert trained.history == expected.history
        for mine, reference in zip(other.parameters(), plain.parameters(), strict=True):
            assert torch.equal(mine, reference)
