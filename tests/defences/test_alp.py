"""Adversarial logit pairing against its formula."""

import copy

import pytest
import torch

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.alp import ALP
from buttress.errors import UserError
from buttress.threat import Threat


@pytest.mark.parametrize("lam", [0.0, 0.7])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_half_of_each_batch_and_the_mean_squared_difference(lam, mode, network, batch, context):
    model = network(dropout=0.0, dtype=torch.float64, activation=torch.nn.Tanh)
    by_hand, attack = copy.deepcopy(model), PGD(threat=Threat(eps=0.1), steps=3)
    place = context(model, batch)
    x_adv = attack.craft(by_hand, batch.x, batch.y, seed=place.seed, ids=batch.ids, mode=mode)
    clean, adversarial = by_hand(batch.x), by_hand(x_adv)
    both = [-z.softmax(1)[torch.arange(8), batch.y].log() for z in (clean, adversarial)]
    pairing = sum((clean[i, c] - adversarial[i, c]) ** 2 for i in range(8) for c in range(4)) / 32
    expected = torch.cat(both).mean() + lam * pairing
    loss = ALP(attack, lam, mode).loss(model, batch, place)
    torch.testing.assert_close(loss.value, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(loss.logs["pairing"], pairing.detach(), rtol=0, atol=1e-12)
    ours = torch.autograd.grad(loss.value, list(model.parameters()))
    theirs = torch.autograd.grad(expected, list(by_hand.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_means_nothing(lam):
    with pytest.raises(UserError, match="lam must be a finite number of 0 or more"):
        ALP(lam=lam)
