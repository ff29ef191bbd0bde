"""Training on single steps from the input itself and from large noise, each against its formula in float64."""

import copy

import pytest
import torch

from buttress.defences.eps_warmup import EpsWarmup
from buttress.defences.fgsm_training import FGSMTraining, NFGSMTraining
from buttress.random import Random, derive
from buttress.threat import Threat
from buttress.training.validation import default_attack

EPS = 0.07


@pytest.fixture
def smooth(network):
    """Without ties, in float64, with statistics of BatchNorm that differ from the batch's."""
    model = network(dropout=0.0, dtype=torch.float64, activation=torch.nn.Tanh)
    with torch.no_grad():
        model[1].running_mean.fill_(0.3)
        model[1].running_var.fill_(2.0)
    return model


def cross_entropy(model, x, y):
    return -model(x).log_softmax(1)[torch.arange(len(y)), y].mean()


def stepped(model, batch, start, size):
    leaf = start.clamp(0, 1).requires_grad_()
    return leaf.detach() + size * torch.autograd.grad(cross_entropy(model, leaf, batch.y), leaf)[0].sign()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_fgsm_training_is_cross_entropy_after_one_step_from_the_input(mode, smooth, batch, context):
    by_hand = copy.deepcopy(smooth).train(mode == "train")
    x_adv = stepped(by_hand, batch, batch.x, EPS).clamp(0, 1)
    loss = FGSMTraining(Threat(eps=EPS), mode=mode).loss(smooth, batch, context(smooth, batch)).value
    torch.testing.assert_close(loss, cross_entropy(smooth, x_adv, batch.y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("clip", [False, True])
def test_n_fgsm_is_cross_entropy_after_one_step_from_large_noise(clip, smooth, batch, context):
    place = context(smooth, batch)
    draws = Random(derive(place.seed, "attack"), batch.ids).uniform(batch.x.shape[1:], torch.float64)
    x_adv = stepped(smooth, batch, batch.x + 2 * EPS * (2 * draws - 1), EPS)
    x_adv = (batch.x + (x_adv - batch.x).clamp(-EPS, EPS) if clip else x_adv).clamp(0, 1)
    loss = NFGSMTraining(Threat(eps=EPS), clip=clip).loss(smooth, batch, place).value
    torch.testing.assert_close(loss, cross_entropy(smooth, x_adv, batch.y), rtol=0, atol=1e-12)
    assert ((x_adv - batch.x).abs() > EPS + 1e-9).any() != clip


def test_it_is_validated_in_the_threat_itself():
    assert default_attack(NFGSMTraining(Threat(eps=EPS))).threat == Threat(eps=EPS)


def test_its_budget_can_grow(smooth, batch, context):
    grown = EpsWarmup(NFGSMTraining(Threat(eps=EPS)), epochs=4)
    value = grown.loss(smooth, batch, context(smooth, batch, epoch=1.0)).value
    direct = NFGSMTraining(Threat(eps=EPS / 4)).loss(smooth, batch, context(smooth, batch)).value
    torch.testing.assert_close(value, direct, rtol=0, atol=1e-12)
