"""Friendly adversarial training: which attack when, and the loss where it stops."""

import copy

import pytest
import torch

from buttress.attacks.gradient.friendly_pgd import FriendlyPGD
from buttress.defences.friendly import Friendly
from buttress.errors import UserError
from buttress.threat import Threat


def test_tau_grows_at_the_published_epochs():
    """0 until epoch 50 of 120, 1 until 90, then 2."""
    defence = Friendly()
    taus = [defence.attack_at(epoch / 120).tau for epoch in (0, 49, 50, 89, 90, 119)]
    assert taus == [0, 0, 1, 1, 2, 2]
    assert defence.attack.tau == 2
    assert Friendly(tau=3, milestones=()).attack_at(1.0).tau == 3


@pytest.mark.parametrize(("progress", "tau"), [(0.1, 1), (0.6, 2)])
@pytest.mark.parametrize("spare", [False, True])
def test_the_loss_is_cross_entropy_where_the_attack_stops(progress, tau, spare, network, batch, context):
    model = network(dropout=0.0, dtype=torch.float64, activation=torch.nn.Tanh)
    defence = Friendly(Threat(eps=0.2), steps=4, step_size=0.05, tau=1, milestones=(0.5,), spare=spare)
    place, by_hand = context(model, batch, progress=progress), copy.deepcopy(model)
    attack = FriendlyPGD(threat=Threat(eps=0.2), steps=4, step_size=0.05, tau=tau)
    x_adv = attack.craft(by_hand, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    expected = -by_hand(x_adv).log_softmax(1)[torch.arange(8), batch.y].mean()
    torch.testing.assert_close(defence.loss(model, batch, place).value, expected, rtol=0, atol=1e-12)


def test_what_sparing_saves_is_not_known_beforehand():
    assert Friendly(steps=4).cost.crafting == 8
    assert Friendly(steps=4, spare=True).cost is None


@pytest.mark.parametrize("milestones", [(1.5,), (-0.1,), ("late",)])
def test_milestones_are_shares(milestones):
    with pytest.raises(UserError, match=r"milestones must be a number in \[0, 1\]"):
        Friendly(milestones=milestones)
