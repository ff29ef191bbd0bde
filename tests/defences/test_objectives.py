"""Each objective against its formula, written out here in float64, and each crafted point against a loop of its own."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.cfa import CFA
from buttress.defences.fgsm_training import Fast
from buttress.defences.frl import FRL
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.threat import Threat

EPS = 0.07
EXACT = {"rtol": 0, "atol": 1e-12}


def cross_entropy(logits, y):
    return -(logits - logits.exp().sum(1, keepdim=True).log()).gather(1, y[:, None]).mean()


def divergence(clean, perturbed):
    """sum over classes of p log(p / q), p the clean prediction; the mean over inputs."""
    p, q = clean.softmax(1), perturbed.softmax(1)
    return (p * (p.log() - q.log())).sum(1).mean()


def draws(context, batch):
    return Random(derive(context.seed, "attack"), batch.ids)


def clipped(x_adv, x, eps=EPS):
    return torch.max(torch.min(x_adv, x + eps), x - eps).clamp(0, 1)


def slope(value, x):
    return torch.autograd.grad(value, x)[0]


@pytest.fixture
def smooth(network):
    """A network without ties, in float64, with statistics of BatchNorm that differ from the batch's."""
    model = network(dropout=0.0, dtype=torch.float64, activation=torch.nn.Tanh)
    with torch.no_grad():
        model[1].running_mean.fill_(0.3)
        model[1].running_var.fill_(2.0)
    return model


@pytest.fixture
def edge(batch):
    """The batch with values at the box's edge, where clipping to the box matters."""
    x = batch.x.clone()
    x[:, :, 0], x[:, :, 1] = 0.0, 1.0
    return type(batch)(x, batch.y, batch.ids)


def test_standard_is_cross_entropy(smooth, batch, context):
    loss = Standard().loss(smooth, batch, context(smooth, batch)).value
    torch.testing.assert_close(loss, cross_entropy(smooth(batch.x), batch.y), **EXACT)


def test_label_smoothing_spreads_its_share_over_all_classes(smooth, batch, context):
    loss = Standard(label_smoothing=0.2).loss(smooth, batch, context(smooth, batch)).value
    target = 0.8 * F.one_hot(batch.y, 4) + 0.2 / 4
    expected = -(target * smooth(batch.x).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)  # torch keeps the share in float32


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_adversarial_training_is_cross_entropy_where_its_attack_ends(mode, smooth, edge, context):
    defence = AdversarialTraining(PGD(threat=Threat(eps=EPS), steps=3, step_size=0.03), mode)
    place = context(smooth, edge)
    by_hand = copy.deepcopy(smooth).train(mode == "train")
    x_adv = edge.x + EPS * (2 * draws(place, edge).uniform(edge.x.shape[1:], torch.float64) - 1)
    x_adv = clipped(x_adv, edge.x)
    for _ in range(3):
        leaf = x_adv.clone().requires_grad_()
        x_adv = clipped(x_adv + 0.03 * slope(cross_entropy(by_hand(leaf), edge.y), leaf).sign(), edge.x)
    torch.testing.assert_close(place.craft(defence.attack, mode=mode), x_adv, **EXACT)
    loss = defence.loss(smooth, edge, place).value
    torch.testing.assert_close(loss, cross_entropy(smooth(x_adv), edge.y), **EXACT)


def test_adversarial_training_takes_any_attack(smooth, batch, context):
    for attack in (FGSM(threat=Threat(eps=EPS)), PGD(threat=Threat(norm="l2", eps=0.5), steps=2)):
        place = context(smooth, batch)
        x_adv = attack.craft(smooth, batch.x, batch.y, seed=place.seed, ids=batch.ids)
        loss = AdversarialTraining(attack).loss(smooth, batch, place).value
        torch.testing.assert_close(loss, cross_entropy(smooth(x_adv), batch.y), **EXACT)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_fast_takes_one_step_of_alpha_eps_from_a_uniform_start_and_clips(mode, smooth, edge, context):
    place = context(smooth, edge)
    defence = Fast(Threat(eps=EPS), mode=mode)
    by_hand = copy.deepcopy(smooth).train(mode == "train")
    start = edge.x + EPS * (2 * draws(place, edge).uniform(edge.x.shape[1:], torch.float64) - 1)
    leaf = start.clamp(0, 1).requires_grad_()
    step = 1.25 * EPS * slope(cross_entropy(by_hand(leaf), edge.y), leaf).sign()
    x_adv = clipped(leaf.detach() + step, edge.x)
    assert ((leaf + step - edge.x).abs() > EPS).any(), "the case does not try the clipping"
    torch.testing.assert_close(place.craft(defence.attack, mode=mode), x_adv, **EXACT)
    loss = defence.loss(smooth, edge, place).value
    torch.testing.assert_close(loss, cross_entropy(smooth(x_adv), edge.y), **EXACT)


def trades_point(model, batch, context, steps, step_size):
    """The ascent of the divergence in eval mode from x + 0.001 N(0, 1)."""
    by_hand = copy.deepcopy(model).eval()
    clean = by_hand(batch.x).detach()
    x_adv = batch.x + 0.001 * draws(context, batch).normal(batch.x.shape[1:], torch.float64)
    for _ in range(steps):
        leaf = x_adv.clone().requires_grad_()
        x_adv = clipped(x_adv + step_size * slope(divergence(clean, by_hand(leaf)), leaf).sign(), batch.x)
    return x_adv


def test_trades_is_clean_cross_entropy_plus_beta_times_the_divergence(smooth, edge, context, passes):
    defence = TRADES(Threat(eps=EPS), steps=4, step_size=0.02, beta=5.0)
    place = context(smooth, edge)
    x_adv = trades_point(smooth, edge, place, 4, 0.02)
    torch.testing.assert_close(place.craft(defence.attack), x_adv, **EXACT)
    with passes(smooth) as modes:
        loss = defence.loss(smooth, edge, place)
    assert modes == [False] * 5 + [True] * 2, "the clean reference and 4 steps in eval mode; one clean, one perturbed"
    clean, perturbed = smooth(edge.x), smooth(x_adv)
    natural, boundary = cross_entropy(clean, edge.y), divergence(clean, perturbed)
    torch.testing.assert_close(loss.value, natural + 5.0 * boundary, **EXACT)
    torch.testing.assert_close(dict(loss.logs), {"natural": natural.detach(), "boundary": boundary.detach()}, **EXACT)


@pytest.mark.parametrize("method", ["trades", "frl", "cfa"])
def test_in_l2_the_divergence_is_attacked_as_released(method, smooth, edge, context, images):
    """delta by steps along the normalised gradient, cut to the box, then scaled into the ball."""
    settings, place = {"threat": Threat(norm="l2", eps=0.5), "steps": 4, "step_size": 0.3}, context(smooth, edge)
    defence = {"trades": TRADES, "frl": FRL, "cfa": partial(CFA, "trades")}[method](**settings)
    defence.prepare(smooth, images, 0)
    smooth.train()
    by_hand = copy.deepcopy(smooth).eval()
    delta = 0.001 * draws(place, edge).normal(edge.x.shape[1:], torch.float64)
    reference = by_hand(edge.x).detach()
    for _ in range(4):
        leaf = (edge.x + delta).requires_grad_()
        ascent = slope(divergence(reference, by_hand(leaf)), leaf)
        delta = delta + 0.3 * ascent / ascent.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = (edge.x + delta).clamp(0, 1) - edge.x
        delta = delta * (0.5 / delta.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(place.craft(defence.attack), edge.x + delta, rtol=0, atol=1e-9)
    ball_first = replace(defence.attack, box_first=False)
    assert float((place.craft(ball_first) - edge.x).norm()) < float(delta.norm())


def test_the_gradient_of_trades_flows_through_both_arguments_of_the_divergence(smooth, batch, context):
    defence, parameters = TRADES(Threat(eps=EPS), steps=2, beta=5.0), list(smooth.parameters())
    place = context(smooth, batch)
    x_adv = trades_point(smooth, batch, place, 2, 2.5 * EPS / 2)
    ours = torch.autograd.grad(defence.loss(smooth, batch, place).value, parameters)

    def gradient(reference):
        clean = smooth(batch.x)
        value = cross_entropy(clean, batch.y) + 5.0 * divergence(reference(clean), smooth(x_adv))
        return torch.autograd.grad(value, parameters)

    torch.testing.assert_close(ours, gradient(lambda clean: clean), rtol=0, atol=1e-10)
    one_sided = gradient(lambda clean: clean.detach())
    assert max(float((a - b).abs().max()) for a, b in zip(ours, one_sided, strict=True)) > 1e-3


def test_trades_updates_batchnorm_by_one_clean_and_one_perturbed_pass_only(smooth, batch, context):
    place, by_hand = context(smooth, batch), copy.deepcopy(smooth)
    x_adv = trades_point(smooth, batch, place, 2, 2.5 * EPS / 2)
    by_hand(batch.x)
    by_hand(x_adv)
    TRADES(Threat(eps=EPS), steps=2).loss(smooth, batch, place)
    torch.testing.assert_close(dict(smooth.named_buffers()), dict(by_hand.named_buffers()), **EXACT)


def test_trades_without_beta_or_without_room_is_standard_training(smooth, batch, context):
    standard = cross_entropy(smooth(batch.x), batch.y)
    for defence in (TRADES(Threat(eps=EPS), beta=0.0), TRADES(Threat(eps=0.0), step_size=0.01)):
        loss = defence.loss(smooth, batch, context(smooth, batch)).value
        torch.testing.assert_close(loss, standard, **EXACT)


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf")])
def test_trades_refuses_a_beta_that_is_no_weight(beta):
    with pytest.raises(UserError, match="beta must be a finite number of 0 or more; got"):
        TRADES(beta=beta)


def test_what_each_costs_in_passes(smooth, batch, context, passes):
    threat = Threat(eps=EPS)
    costs = {
        Standard(): [True],
        AdversarialTraining(PGD(threat=threat, steps=3)): [False] * 3 + [True],
        Fast(threat): [True, True],
    }
    for defence, expected in costs.items():
        with passes(smooth) as modes:
            defence.loss(smooth, batch, context(smooth, batch))
        assert modes == expected
