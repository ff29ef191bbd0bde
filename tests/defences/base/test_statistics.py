"""Whether crafting passes move BatchNorm's running statistics, for every defence that offers it."""

import copy
import inspect

import pytest
import torch
from torch import nn

from buttress import registry
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.awp import AWP
from buttress.defences.base.crafting import crafting_passes
from buttress.defences.fgsm_training import Fast
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.threat import Threat

EPS = 0.07
NAMES = [
    name
    for name in registry.defence.names()
    if "move_statistics" in inspect.signature(registry.defence.get(name)).parameters
]
CRAFTING = {"at": {"attack": PGD(threat=Threat(eps=EPS), steps=3), "mode": "train"}, "cfa": {"steps": 3}}


def made(name, **settings):
    member = registry.defence.get(name)
    threat = {"threat": Threat(eps=EPS)} if "threat" in inspect.signature(member).parameters else {}
    return member(**threat, **CRAFTING.get(name, {}), **settings)


def moves(model):
    """How often BatchNorm's statistics moved."""
    return [int(module.num_batches_tracked) for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_single_step_methods_offer_it():
    assert {"fgsm", "fast", "n-fgsm", "masked-fgsm", "grad-align", "at", "cfa"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_only_training_passes_move_statistics_unless_asked_for(name, network, single, images, context):
    """Counted by BatchNorm itself: one pass that trains, and the passes that craft."""
    start = network(dropout=0.0)
    crafted = 2 if name == "grad-align" else int(crafting_passes(made(name).attack, "train")) // 2
    for moving, expected in ((False, 1), (True, 1 + crafted)):
        model, defence = copy.deepcopy(start), made(name, move_statistics=moving)
        defence.prepare(model, images, 0)
        defence.loss(model, single, context(model, single))
        assert moves(model) == [expected]


@pytest.mark.parametrize("name", ["at", "fgsm", "fast", "n-fgsm", "masked-fgsm"])
def test_in_eval_mode_there_is_nothing_to_move(name):
    with pytest.raises(UserError, match='needs passes that craft in mode "train"; got mode "eval"'):
        registry.defence.get(name)(mode="eval", move_statistics=True)


def test_the_statistics_of_fast_training_are_those_of_both_passes(network, batch, context):
    """FGSM-RS by hand in float64: the network sees its start and then its point, both in train mode."""
    model = network(dropout=0.0, dtype=torch.float64)
    by_hand, place = copy.deepcopy(model), context(model, batch)
    draws = Random(derive(place.seed, "attack"), batch.ids).uniform(batch.x.shape[1:], torch.float64)
    start = (batch.x + EPS * (2 * draws - 1)).clamp(0, 1).requires_grad_()
    logits = by_hand(start)
    slope = torch.autograd.grad(nn.functional.cross_entropy(logits, batch.y), start)[0]
    x_adv = batch.x + (start.detach() + 1.25 * EPS * slope.sign() - batch.x).clamp(-EPS, EPS)
    by_hand(x_adv.clamp(0, 1))
    Fast(Threat(eps=EPS), move_statistics=True).loss(model, batch, place)
    torch.testing.assert_close(dict(model.named_buffers()), dict(by_hand.named_buffers()), rtol=0, atol=1e-12)


def test_moved_weights_leave_one_crafting_and_one_training_pass(network, train):
    """AWP crafts once and evaluates the loss twice, the first time with statistics that are put back."""
    counts = {}
    for gamma in (0.0, 0.01):
        model = network(dropout=0.0)
        train(model, AWP(Fast(Threat(eps=EPS), move_statistics=True), gamma=gamma), epochs=1)
        counts[gamma] = moves(model)
    assert counts[0.0] == counts[0.01] == [2 * 3]
