"""Adversarial training of the smoothed network: points and noise are those of the attack."""

import pytest
import torch
import torch.nn.functional as F

from buttress.attacks import PGD, SmoothAdv
from buttress.attacks.composed.smoothadv import noise_of
from buttress.defences.base.step_context import rescaled
from buttress.defences.eps_warmup import EpsWarmup
from buttress.defences.smoothadv import SmoothAdvTraining
from buttress.engine.perturbation import attack_random
from buttress.errors import UserError
from buttress.threat import Threat

ATTACK = PGD(threat=Threat(norm="l2", eps=0.5), steps=2)


def test_it_trains_at_the_attacks_points_under_the_attacks_noise(network, batch, context):
    model = network(dropout=0.0, dtype=torch.float64).eval()
    place = context(model, batch)
    attack = SmoothAdv(attack=ATTACK, sigma=0.4, samples=2)
    x_adv = attack.craft(model, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    noise = noise_of(attack_random(place.seed, batch.ids), 0, 0.4, batch.x)
    loss = SmoothAdvTraining(ATTACK, sigma=0.4, samples=2).loss(model, batch, place).value
    torch.testing.assert_close(loss, F.cross_entropy(model(x_adv + noise), batch.y))


@pytest.mark.parametrize("samples", [1, 3])
def test_each_sample_costs_the_attacks_passes(samples):
    cost = SmoothAdvTraining(ATTACK, samples=samples).cost
    assert (cost.crafting, cost.training) == (4 * samples, 2)


def test_a_growing_budget_is_that_of_the_attack_inside(network, batch, context):
    """Of every attack that runs another one the share is taken of the innermost threat."""
    half = rescaled(SmoothAdv(attack=ATTACK, sigma=0.4), 0.5)
    assert isinstance(half, SmoothAdv)
    assert (half.threat.eps, half.attack.threat.eps, half.sigma) == (0.25, 0.25, 0.4)
    model = network(dropout=0.0, dtype=torch.float64)
    place = context(model, batch)
    wrapped = EpsWarmup(SmoothAdvTraining(ATTACK), epochs=10)
    assert torch.isfinite(wrapped.loss(model, batch, place).value)


def test_settings_that_make_no_sense_are_told():
    with pytest.raises(UserError, match="sigma must be a finite number above 0; got 0"):
        SmoothAdvTraining(sigma=0)
    with pytest.raises(UserError, match="samples must be a whole number of 1 or more; got 0"):
        SmoothAdvTraining(samples=0)
