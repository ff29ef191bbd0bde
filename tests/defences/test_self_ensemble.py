"""Random self-ensemble: one draw a step, by the step's seed, and noise that stays with the network."""

import copy

import pytest
import torch
from torch import nn

from buttress import models
from buttress.attacks.composed.eot import EoT
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.self_ensemble import SelfEnsemble
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.models.blocks.noisy import Averaged, GaussianNoise, add_noise, is_noisy
from buttress.random import derive
from buttress.threat import Threat
from buttress.training import load


def test_a_step_is_cross_entropy_under_the_draw_of_its_seed(network, images, batch, context):
    model = network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)
    by_hand, defence = copy.deepcopy(model), SelfEnsemble()
    defence.prepare(model, images, 0)
    place, state = context(model, batch), torch.get_rng_state()
    loss = defence.loss(model, batch, place).value
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(derive(place.seed, "noise"))
        logits = by_hand(batch.x + 0.2 * torch.randn_like(batch.x))
    expected = -logits.log_softmax(1)[torch.arange(8), batch.y].mean()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    other = context(model, batch, index=4)
    assert defence.loss(model, batch, other).value != loss


def test_without_noise_it_is_standard_training_to_the_bit(network, train, same):
    runs = [train(network(dropout=0.0), defence) for defence in (Standard(), SelfEnsemble(first=0.0, inner=0.0))]
    same(runs[0].model.state_dict(), runs[1].model.state_dict())
    same(runs[0].history, runs[1].history)


def test_a_noisy_network_keeps_its_own(network, images):
    model = add_noise(network(), first=0.05)
    SelfEnsemble(first=0.2).prepare(model, images, 0)
    hooks = [hook for m in model.modules() for hook in m._forward_pre_hooks.values()]
    assert [hook.std for hook in hooks if isinstance(hook, GaussianNoise)] == [0.05]


def test_the_noise_comes_back_from_the_runs_folder(train, tmp_path, same):
    model = models.create("cnn", classes=4, image_size=6, width=2, seed=4)
    trained = train(model, SelfEnsemble(first=0.3, inner=0.15), out=tmp_path / "run").model
    found = load(tmp_path / "run")
    assert is_noisy(found)
    same(found.state_dict(), trained.state_dict())
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    outputs = []
    for network in (trained, found):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            outputs.append(network(x))
    same(outputs[0], outputs[1])
    assert not torch.equal(trained(x), outputs[0])


def test_an_attack_over_draws_meets_the_mean_predictor(network):
    """EoT's verdict on the noisy network is that of the mean over as many draws."""
    model = add_noise(network(dropout=0.0), first=0.5).eval()
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6) % 4
    attack = EoT(attack=PGD(threat=Threat(eps=0.05), steps=1, step_size=0.05), draws=64)
    result = attack(model, x, y, seed=1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        expected = nn.functional.cross_entropy(Averaged(model, 2048)(result.x_adv), y, reduction="none")
    torch.testing.assert_close(result.loss, expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("options", [{"first": -0.1}, {"inner": float("inf")}, {"first": float("nan")}])
def test_settings_that_mean_nothing(options):
    with pytest.raises(UserError, match="must be a finite number of 0 or more"):
        SelfEnsemble(**options)
