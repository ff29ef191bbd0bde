"""DIAL against its formula, its schedule, and weight perturbation around it against a loop."""

import copy
import math

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.awp import AWP
from buttress.defences.dial.defence import DIAL, domain_head, last_linear
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.models import Normalized
from buttress.random import derive
from buttress.threat import Threat
from buttress.training import Optimiser
from buttress.training.batches import Batches

EXACT = {"rtol": 0, "atol": 1e-12}
THREAT = Threat(eps=0.07)


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)


@pytest.fixture
def prepared(images):
    def make(model, **options):
        defence = DIAL(THREAT, steps=2, **options)
        defence.prepare(model, images, 5)
        return defence

    return make


def cross_entropy(logits, y):
    return -logits.log_softmax(1)[torch.arange(len(y)), y].mean()


def divergence(clean, perturbed):
    return (clean.softmax(1) * (clean.log_softmax(1) - perturbed.log_softmax(1))).sum(1).mean()


def head_logits(head, features):
    """FC, BatchNorm by the batch, ReLU, FC."""
    h = features @ head[0].weight.T + head[0].bias
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + head[1].eps).sqrt() * head[1].weight + head[1].bias
    return h.clamp(min=0) @ head[3].weight.T + head[3].bias


def terms(model, head, x, x_adv, y, end=6):
    """Natural, CE, KL and domain terms; features are what enters module ``end`` of a Sequential."""
    features = [model[:end](x)]
    logits = [model[end:](features[0])]
    features.append(model[:end](x_adv))
    logits.append(model[end:](features[1]))
    zero, one = torch.zeros_like(y), torch.ones_like(y)
    flat = [f.flatten(1) for f in features]
    domain = cross_entropy(head_logits(head, flat[0]), zero) + cross_entropy(head_logits(head, flat[1]), one)
    return cross_entropy(logits[0], y), cross_entropy(logits[1], y), divergence(*logits), domain


@pytest.mark.parametrize(("layer", "end"), [(None, 6), ("2", 3)])
@pytest.mark.parametrize("variant", ["ce", "kl"])
def test_the_loss_and_where_its_gradient_goes(variant, layer, end, smooth, batch, context, prepared):
    """The head descends the domain term, the network up to the features ascends it r times, what follows ignores it."""
    defence = prepared(smooth, variant=variant, beta=3.0, lamd=0.7, head=(9,), layer=layer, schedule="continuous")
    place, by_hand = context(smooth, batch, progress=0.2), copy.deepcopy(smooth)
    head = copy.deepcopy(defence.domain_head)
    inner = "kl" if variant == "kl" else None
    attack = PGD(threat=THREAT, steps=2, start="normal", loss=inner)
    x_adv = attack.craft(by_hand, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    natural, ce, kl, domain = terms(by_hand, head, batch.x, x_adv, batch.y, end)
    main = natural + 3.0 * (kl if variant == "kl" else ce)
    loss = defence.loss(smooth, batch, place)
    torch.testing.assert_close(loss.value, main + 0.7 * domain, **EXACT)
    torch.testing.assert_close(loss.logs["domain"], domain.detach(), **EXACT)

    r = 2 / (1 + math.exp(-2.0)) - 1
    assert defence.strength(place) == pytest.approx(r)
    loss.value.backward()
    weights = list(by_hand.parameters())
    slopes = torch.autograd.grad(main, weights, retain_graph=True)
    pulls = torch.autograd.grad(domain, [*weights, *head.parameters()], allow_unused=True)
    for own, slope, pull in zip(smooth.parameters(), slopes, pulls, strict=False):
        expected = slope if pull is None else slope - r * 0.7 * pull
        torch.testing.assert_close(own.grad, expected, rtol=0, atol=1e-10)
    assert sum(pull is None for pull in pulls) == (2 if layer is None else 4)
    for own, pull in zip(defence.domain_head.parameters(), pulls[len(weights) :], strict=True):
        torch.testing.assert_close(own.grad, 0.7 * pull, rtol=0, atol=1e-10)


def test_without_a_domain_term_it_is_trades(smooth, batch, context, prepared):
    """The same points, one clean pass: the same value, the same gradients."""
    other = copy.deepcopy(smooth)
    defence = prepared(smooth, variant="kl", beta=4.0, lamd=0.0, reversal=0.0)
    loss = defence.loss(smooth, batch, context(smooth, batch, progress=0.5)).value
    trades = TRADES(THREAT, steps=2, beta=4.0).loss(other, batch, context(other, batch)).value
    torch.testing.assert_close(loss, trades, rtol=0, atol=0)
    ours, theirs = (torch.autograd.grad(v, list(m.parameters())) for v, m in ((loss, smooth), (trades, other)))
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_without_reversal_the_network_does_not_feel_the_head(smooth, batch, context, prepared):
    other = copy.deepcopy(smooth)
    defence = prepared(smooth, variant="kl", beta=4.0, lamd=5.0, reversal=0.0)
    loss = defence.loss(smooth, batch, context(smooth, batch, progress=0.5)).value
    loss.backward()
    trades = TRADES(THREAT, steps=2, beta=4.0).loss(other, batch, context(other, batch)).value
    theirs = torch.autograd.grad(trades, list(other.parameters()))
    torch.testing.assert_close([p.grad for p in smooth.parameters()], list(theirs), **EXACT)
    assert all(p.grad.abs().sum() > 0 for p in (defence.domain_head[0].weight, defence.domain_head[-1].weight))


@pytest.mark.parametrize(
    ("schedule", "epoch", "p"),
    [
        ("stepwise", 0.5, 0.01),
        ("stepwise", 0.99, 0.01),
        ("stepwise", 1.0, 0.02),
        ("stepwise", 59.5, 0.6),
        ("stepwise", 99.9, 1.0),
        ("continuous", 0.5, 0.005),
        ("continuous", 50.0, 0.5),
    ],
)
def test_the_strength_of_100_epochs(schedule, epoch, p, network, single, context):
    place = context(network(), single, epoch=epoch, progress=epoch / 100)
    expected = 2 / (1 + math.exp(-10 * p)) - 1
    assert DIAL(schedule=schedule).strength(place) == pytest.approx(expected)
    assert DIAL(schedule=schedule, reversal=0.3).strength(place) == pytest.approx(0.3 * expected)


def test_at_the_very_first_step_nothing_is_reversed(network, single, context):
    assert DIAL().strength(context(network(), single)) == 0
    first = DIAL().strength(context(network(), single, epochs=100))  # the first of 100 epochs, not the start of it
    assert first == pytest.approx(2 / (1 + math.exp(-0.1)) - 1)
    assert DIAL(schedule="continuous").strength(context(network(), single)) == 0


def test_the_last_linear_layer_is_found_in_order_of_execution(images):
    class Twisted(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.hidden, self.unused = nn.Linear(5, 4), nn.Linear(36, 5), nn.Linear(2, 2)

        def forward(self, x):
            return self.out(self.hidden(x.flatten(1)).relu())

    x = images.train.take(torch.arange(2))[0]
    assert last_linear(Twisted(), x) == "out"
    assert last_linear(Normalized(Twisted(), 0.5, 0.5), x) == "out"
    defence = DIAL()
    defence.prepare(Normalized(Twisted(), 0.5, 0.5), images, 0)
    assert defence.domain_head[0].in_features == 5


def test_the_head_follows_from_the_seed_and_leaves_no_trace(network, images, nets, same):
    model, states = network(), []
    before = nets.state(model)
    for seed in (1, 1, 2):
        defence = DIAL(head=(7, 5), batch_norm=False)
        defence.prepare(model, images, seed)
        states.append(defence.domain_head.state_dict())
    nets.assert_state(model, before)
    same(states[0], states[1])
    assert not torch.equal(states[0]["0.weight"], states[2]["0.weight"])
    assert [tuple(w.shape) for n, w in states[0].items() if "weight" in n] == [(7, 8), (5, 7), (2, 5)]


def test_heads_of_the_paper():
    kinds = [type(layer).__name__ for layer in domain_head(640, (100,))]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in domain_head(512, ())] == ["Linear"]
    assert len(domain_head(512, (256, 256), batch_norm=False)) == 5
    assert not list(domain_head(640, (100,)).buffers())


def test_weight_perturbation_around_it_equals_its_loop(nets, images, train):
    """The network's matrices move, its biases and the whole head do not; one SGD step of all at the moved point."""
    small = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))).train()
    options = {"variant": "kl", "beta": 3.0, "lamd": 0.5, "head": (6,)}
    twin, by_hand = DIAL(THREAT, steps=2, **options), copy.deepcopy(small)
    twin.prepare(by_hand, images, 3)
    head, weights = twin.domain_head, list(by_hand.parameters())
    every = [*weights, *head.parameters()]

    def slopes(batch, x_adv, epoch, wanted):
        natural, _, kl, domain = terms(by_hand, head, batch.x, x_adv, batch.y, end=3)
        r = 2 / (1 + math.exp(-10 * (epoch + 1) / 2)) - 1
        main = torch.autograd.grad(natural + 3.0 * kl, wanted, retain_graph=True, allow_unused=True)
        pull = torch.autograd.grad(domain, wanted, allow_unused=True)
        factors = [-r if any(p is w for w in weights) else 1.0 for p in wanted]
        zeros = [torch.zeros_like(p) for p in wanted]
        main, pull = ([z if g is None else g for g, z in zip(gs, zeros, strict=True)] for gs in (main, pull))
        return [m + 0.5 * f * p for m, f, p in zip(main, factors, pull, strict=True)]

    index = 0
    for epoch in range(2):
        for batch in Batches(images, 12, 3, torch.device("cpu")).epoch(epoch):
            seed = derive(3, "step", index)
            x_adv = twin.attack.craft(by_hand, batch.x, batch.y, seed=seed, ids=batch.ids)
            up = slopes(batch, x_adv, epoch, weights)
            before = [p.detach().clone() for p in every]
            with torch.no_grad():
                for w, g in zip(weights, up, strict=True):
                    w += 0.05 * w.norm() * g / g.norm() if w.dim() > 1 else 0
            down = slopes(batch, x_adv, epoch, every)
            with torch.no_grad():
                for p, b, g in zip(every, before, down, strict=True):
                    p.copy_(b - 0.05 * g)
            index += 1
    defence = DIAL(THREAT, steps=2, **options)
    optimiser = Optimiser(name="sgd", lr=0.05, momentum=0.0)
    trained = train(small, AWP(defence, gamma=0.05), optimiser=optimiser)
    torch.testing.assert_close(trained.model.state_dict(), by_hand.state_dict(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(defence.domain_head.state_dict(), head.state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.full  # what the reversal does to gradients is computed by hand above
def test_reversed_features_tell_the_domains_apart_less(network, train):
    """Means over seeds: one short training differs from machine to machine by as much as the reversal does."""
    accuracies = []
    for reversal in (0.0, 1.0):
        found = []
        for seed in range(4):
            defence = DIAL(Threat(eps=0.3), steps=2, lamd=10.0, reversal=reversal)
            history = train(network(seed, dropout=0.0), defence, epochs=15, seed=seed).history
            found += [row["domain accuracy"] for row in history[-5:]]
        accuracies.append(sum(found) / len(found))
    assert abs(accuracies[1] - 0.5) < abs(accuracies[0] - 0.5) - 0.05, accuracies


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"variant": "mse"}, "variant must be one of ce, kl; got 'mse'"),
        ({"schedule": "late"}, "schedule must be one of stepwise, continuous; got 'late'"),
        ({"beta": -1.0}, "beta must be a finite number of 0 or more; got -1"),
        ({"lamd": float("nan")}, "lamd must be a finite number of 0 or more; got nan"),
        ({"head": (0,)}, "head must be a whole number of 1 or more; got 0"),
        ({"head": 100}, "head must be a list of whole numbers"),
    ],
)
def test_settings_that_mean_nothing(options, line):
    with pytest.raises(UserError, match=line):
        DIAL(**options)


def test_places_that_are_not_there(network, images, single, context):
    with pytest.raises(UserError, match="no layer is called or matches '9'"):
        DIAL(layer="9").prepare(network(), images, 0)
    with pytest.raises(UserError, match="is a pattern"):
        DIAL(layer="[25]").prepare(network(), images, 0)
    with pytest.raises(UserError, match="no linear layer"):
        DIAL().prepare(nn.Sequential(nn.Conv2d(1, 4, 6), nn.Flatten()), images, 0)
    for layer in (None, "5"):
        model, defence = network(), DIAL(THREAT, steps=1, layer=layer)
        with pytest.raises(UserError, match="call that first"):
            defence.loss(model, single, context(model, single))
