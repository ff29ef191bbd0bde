"""Ensemble adversarial training: whose gradients when, members that nothing moves, and where they come from."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import models
from buttress.attacks.gradient.fgsm import FGSM
from buttress.defences.base.networks import new_network
from buttress.defences.ensemble_at import EnsembleAT
from buttress.errors import UserError
from buttress.random import derive
from buttress.threat import Threat

ATTACK = FGSM(threat=Threat(eps=0.07))


@pytest.fixture
def smooth(network):
    def make(seed=0):
        return network(seed, dropout=0.0, dtype=torch.float64, activation=nn.Tanh)

    return make


@pytest.fixture
def prepared(images):
    def make(model, **options):
        defence = EnsembleAT(ATTACK, **options)
        defence.prepare(model, images, 5)
        return defence

    return make


def test_in_each_round_each_source_serves_once(network, prepared):
    defence = prepared(network(), members=3)
    rounds = [[defence.source(4 * turn + k) for k in range(4)] for turn in range(20)]
    for sources in rounds:
        assert len({id(s) for s in sources}) == 4
        assert None in sources
    firsts = [sources.index(None) for sources in rounds]
    assert set(firsts) == {0, 1, 2, 3}, "the order is drawn"


def test_half_clean_half_perturbed_on_the_source(smooth, batch, context, prepared):
    given = [smooth(1), smooth(2)]
    by_hand = smooth()
    defence, seen = prepared(smooth(), members=given), set()
    for index in range(3):
        model = smooth()
        place = context(model, batch, index=index)
        source = defence.source(index)
        same_as = [by_hand, *given][0 if source is None else 1 + defence._networks.index(source)]
        x_adv = ATTACK.craft(copy.deepcopy(same_as), batch.x, batch.y, seed=place.seed, ids=batch.ids)
        seen.add(x_adv)
        logits = torch.cat([copy.deepcopy(by_hand)(x) for x in (batch.x, x_adv)])
        expected = -logits.log_softmax(1)[torch.arange(16), batch.y.repeat(2)].mean()
        torch.testing.assert_close(defence.loss(model, batch, place).value, expected, rtol=0, atol=1e-12)
    assert len(seen) == 3


def test_a_share_of_the_budget_holds_on_members_too(smooth, batch, context, prepared):
    model = smooth()
    defence = prepared(model, members=1)
    index = next(i for i in range(2) if defence.source(i) is not None)
    place = context(model, batch, index=index)
    place.scale = 0.5
    x_adv = FGSM(threat=Threat(eps=0.035)).craft(defence.source(index), batch.x, batch.y, seed=place.seed)
    torch.testing.assert_close(defence._crafted(defence.source(index), place), x_adv, rtol=0, atol=0)


def test_members_are_trained_once_and_then_left_alone(network, images, train, nets, same):
    defence, model = EnsembleAT(ATTACK, members=2), network()
    before = nets.state(model)
    with torch.random.fork_rng():  # as the trainer does
        defence.prepare(model, images, 3)
    nets.assert_state(model, before)
    members = [copy.deepcopy(m) for m in defence._networks]
    assert not torch.equal(members[0][0].weight, members[1][0].weight)
    train(model, defence)  # prepares again, with the same seed
    again = EnsembleAT(ATTACK, members=2)
    with torch.random.fork_rng():
        again.prepare(network(), images, derive(0, "another"))
    for one, other, third in zip(members, defence._networks, again._networks, strict=True):
        assert not torch.equal(one[0].weight, third[0].weight)
        same(other.state_dict(), one.state_dict())
        assert not any(m.training for m in other.modules())
        assert all(p.grad is None and not p.requires_grad for p in other.parameters())
    assert not list(defence.parameters())
    assert not defence.state_dict()


def test_members_have_learnt(network, images, prepared):
    x, y, _ = images.train.take(torch.arange(len(images.train)))
    for number, member in enumerate(prepared(network(), epochs=40)._networks):
        untrained = new_network(network(), derive(5, "member", number)).eval()
        assert F.cross_entropy(member(x), y) < F.cross_entropy(untrained(x), y) - 0.1


def test_given_modules_are_copied(network, images, train, nets):
    other = network(1)
    before = nets.state(other)
    train(network(), EnsembleAT(ATTACK, members=[other]))
    nets.assert_state(other, before)


def test_members_from_a_run(images, train, tmp_path, prepared, same):
    trained = train(models.create("cnn", classes=4, image_size=6, width=2, seed=4), None, out=tmp_path / "run").model
    defence = prepared(models.create("cnn", classes=4, image_size=6, width=3, seed=1), members=[str(tmp_path / "run")])
    same(defence._networks[0].state_dict(), trained.state_dict())


def test_a_folder_without_a_network_that_can_be_made(network, images, train, tmp_path):
    with pytest.raises(UserError, match="is no folder of a finished run"):
        EnsembleAT(members=[str(tmp_path)]).prepare(network(), images, 0)
    train(network(), None, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"was not made by models\.create: give the module itself"):
        EnsembleAT(members=[str(tmp_path / "run")]).prepare(network(), images, 0)


@pytest.mark.parametrize("made", [True, False])
def test_fresh_weights(made, network, nets, same):
    """As the architecture draws them where it is known: SmallCNN's last layer starts at zero."""
    model = models.create("smallcnn", image_size=16, seed=0) if made else network(dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    before = nets.state(model)
    one, again, other = new_network(model, 5), new_network(model, 5), new_network(model, 6)
    nets.assert_state(model, before)
    same(one.state_dict(), again.state_dict())
    assert all(a.dtype == b.dtype for a, b in zip(one.parameters(), model.parameters(), strict=True))
    names = [n for n, p in one.named_parameters() if p.dim() > 1 and "fc3" not in n]
    for name in names:
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name)), name
        assert abs(one.get_parameter(name).mean()) < 0.5, name
    if made:
        assert not one.classifier.fc3.weight.any()


def test_settings_that_mean_nothing(network, single, context):
    for members in (0, [], True, [3], 1.5, [""]):
        with pytest.raises(UserError, match=r"^members(, if they are no list of networks and run folders,)? must be "):
            EnsembleAT(members=members)
    with pytest.raises(UserError, match="epochs must be a whole number of 1 or more"):
        EnsembleAT(epochs=0)
    with pytest.raises(UserError, match="call that first"):
        [EnsembleAT().source(i) for i in range(3)]
