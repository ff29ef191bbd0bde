"""Adversarial weight perturbation and a growing budget, each against its own loop."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import registry
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.adv_kip.defence import AdvKIP
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.awp import AWP
from buttress.defences.base.step_context import rescaled
from buttress.defences.base.wrapper import WrapperDefence
from buttress.defences.eps_warmup import EpsWarmup
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.random import derive
from buttress.threat import Threat
from buttress.training import Optimiser
from buttress.training.batches import Batches

SGD = Optimiser(name="sgd", lr=0.05, momentum=0.0)
ATTACK = PGD(threat=Threat(eps=0.1), steps=2)


@pytest.fixture
def small(nets):
    return nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))).train()


def test_weight_perturbation_equals_its_loop(small, images, train):
    """Crafted once, at the weights as they are; matrices move, biases do not; the gradient there is the update."""
    by_hand = copy.deepcopy(small)
    weights = list(by_hand.parameters())
    index = 0
    for epoch in range(2):
        for batch in Batches(images, 12, 3, torch.device("cpu")).epoch(epoch):
            seed = derive(3, "step", index)
            x_adv = ATTACK.craft(by_hand, batch.x, batch.y, seed=seed, ids=batch.ids)
            slopes = torch.autograd.grad(F.cross_entropy(by_hand(x_adv), batch.y), weights)
            before = [w.detach().clone() for w in weights]
            with torch.no_grad():
                for w, g in zip(weights, slopes, strict=True):
                    w += 0.05 * w.norm() * g / g.norm() if w.dim() > 1 else 0
            slopes = torch.autograd.grad(F.cross_entropy(by_hand(x_adv), batch.y), weights)
            with torch.no_grad():
                for w, b, g in zip(weights, before, slopes, strict=True):
                    w.copy_(b - 0.05 * g)
            index += 1
    trained = train(small, AWP(AdversarialTraining(ATTACK), gamma=0.05), optimiser=SGD)
    torch.testing.assert_close(trained.model.state_dict(), by_hand.state_dict())


def test_no_weight_perturbation_gives_the_bits_of_the_base(network, train, same):
    for late in ({"gamma": 0.0}, {"gamma": 0.1, "warmup": 1.9}):
        runs = [train(network(), d) for d in (AdversarialTraining(ATTACK), AWP(AdversarialTraining(ATTACK), **late))]
        same(runs[0].model.state_dict(), runs[1].model.state_dict())


def test_the_move_lets_batch_norm_see_a_batch_once(network, train):
    """TRADES makes one clean and one perturbed pass; the first evaluation of its loss leaves BatchNorm alone."""
    model = network()
    train(model, AWP(TRADES(threat=Threat(eps=0.1), steps=1), gamma=0.01), epochs=1, batch_size=12)
    assert int(model[1].num_batches_tracked) == 2 * 3


def test_weights_are_back_when_the_loss_fails(network, single, context, train):
    class Failing(AdversarialTraining):
        calls = 0

        def loss(self, model, batch, context):
            self.calls += 1
            if self.calls == 2:
                raise UserError("no more")
            return super().loss(model, batch, context)

    model = network()
    before = copy.deepcopy(dict(model.named_parameters()))
    with pytest.raises(UserError, match="no more"):
        train(model, AWP(Failing(ATTACK), gamma=0.5))
    torch.testing.assert_close(dict(model.named_parameters()), before, rtol=0, atol=0)


@pytest.mark.parametrize(("epoch", "share"), [(0.0, 0.0), (1.0, 0.25), (4.0, 1.0), (9.0, 1.0)])
def test_the_budget_grows(epoch, share, network, single, context):
    """The base's own loss under that share of eps and of the step."""
    base = AdversarialTraining(PGD(threat=Threat(eps=0.2), steps=3, step_size=0.1))
    smaller = AdversarialTraining(PGD(threat=Threat(eps=0.2 * share), steps=3, step_size=0.1 * share or None))
    model = network(dropout=0.0)
    grown, direct = copy.deepcopy(model), copy.deepcopy(model)
    value = EpsWarmup(base, epochs=4).loss(grown, single, context(grown, single, epoch=epoch)).value
    torch.testing.assert_close(value, smaller.loss(direct, single, context(direct, single)).value, rtol=0, atol=0)


def test_a_share_for_each_input(network, single, context):
    model, scale = network(dropout=0.0), torch.linspace(0, 1, 8)
    x_adv = context(model, single).craft(PGD(threat=Threat(eps=0.2), steps=5), scale=scale)
    size = (x_adv - single.x).abs().amax((1, 2, 3))
    torch.testing.assert_close(size, 0.2 * scale, rtol=1e-4, atol=1e-7)


def test_an_attack_without_a_threat_has_no_share():
    from buttress.attacks.corruptions.noises import Gaussian

    with pytest.raises(UserError, match="no threat"):
        rescaled(Gaussian(std=0.1), 0.5)


def test_kept_crafts_are_of_the_first_weights(network, single, context):
    model = network(dropout=0.0)
    place = context(model, single)
    with place.craft_once():
        first = place.craft(ATTACK)
        with torch.no_grad():
            model[4].weight.neg_()
        assert place.craft(ATTACK) is first
    assert not torch.equal(place.craft(ATTACK), first)


def test_two_moves_one_in_the_other_leave_the_weights_where_they_were(network, train):
    before = dict(network().named_parameters())
    still = Optimiser(name="sgd", lr=1e-12, momentum=0.0)
    after = train(network(), AWP(EpsWarmup(AWP(AdversarialTraining(ATTACK), gamma=0.1)), gamma=0.1), optimiser=still)
    for name, value in after.model.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


def test_what_has_no_attack_has_no_budget_that_grows(network, images):
    with pytest.raises(UserError, match="standard attacks nothing"):
        EpsWarmup(Standard()).prepare(network(), images, 0)
    EpsWarmup(Standard(), epochs=0.0).prepare(network(), images, 0)


def test_what_attacks_in_its_preparation_alone_has_no_budget_that_grows(network, images, monkeypatch):
    base = AdvKIP(points=4, steps=1, attack=ATTACK)
    monkeypatch.setattr(base, "prepare", lambda *args: pytest.fail("prepared in vain"))
    with pytest.raises(UserError, match=r"awp\(adv-kip\) attacks nothing while the network is trained"):
        EpsWarmup(AWP(base)).prepare(network(), images, 0)
    monkeypatch.undo()
    EpsWarmup(base, epochs=0.0).prepare(network(), images, 0)


class Half(WrapperDefence):
    """Any base under half its budget."""

    def loss(self, model, batch, context):
        context.scale = 0.5
        return super().loss(model, batch, context)


ATTACKING = [name for name in registry.defence.names() if registry.defence.get(name)().attack]


@pytest.mark.representatives(name=["adv-kip", "apart", "at", "awp", "free", "iat", "trades"])
@pytest.mark.parametrize("name", [name for name in ATTACKING if name != "eps-warmup"])  # which sets the share itself
def test_whose_steps_attack_can_be_told_from_what_half_the_budget_changes(name, network, train):
    base = registry.defence.get(name)()
    whole, half = (train(network(), made, epochs=1).model for made in (base, Half(registry.defence.get(name)())))
    changed = any(not torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True))
    assert base.attacks_in_steps == changed
