"""Noise before convolutions: how much, where, and what it leaves alone."""

import copy
import math

import pytest
import torch
from torch import nn

from buttress import models
from buttress.errors import UserError
from buttress.models.blocks.noisy import Averaged, GaussianNoise, add_noise, is_noisy, noisy


def entering(model, x):
    """What each convolution and linear layer is given in one pass, by name."""
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0].detach()}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(x)
    return seen


def two_convolutions():
    """Weights of zero: what enters the second convolution is noise alone."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(800, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


@pytest.mark.parametrize("training", [True, False])
def test_the_deviation_is_the_one_asked_for_in_both_modes(training):
    seen = entering(add_noise(two_convolutions(), 0.2, 0.1).train(training), torch.full((50, 1, 20, 20), 0.5))
    noise = {"0": seen["0"] - 0.5, "1": seen["1"]}
    for name, std in (("0", 0.2), ("1", 0.1)):
        assert abs(noise[name].mean()) < 4 * std / math.sqrt(noise[name].numel())
        torch.testing.assert_close(noise[name].std().item(), std, rtol=0.02, atol=0)
        rows = noise[name].flatten(1)
        assert abs((rows[0] * rows[1]).mean() / std**2) < 0.2, "each input has its own"
    assert not seen["3"].any(), "no noise before a linear layer of a convolutional network"


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_without_deviation_the_bits_are_the_plain_models(name):
    options = {"cnn": {"image_size": 8}, "mlp": {"features": 64}}[name]
    plain = models.create(name, seed=3, **options).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    assert torch.equal(add_noise(copy.deepcopy(plain), 0.0, 0.0)(x), plain(x))
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"


def test_a_network_without_convolutions_has_it_before_linear_layers():
    model = add_noise(models.create("mlp", features=4, hidden=(5, 6), seed=0), 0.3, 0.2)
    found = {n: h.std for n, m in model.named_modules() for h in m._forward_pre_hooks.values()}
    assert found == {"fc1": 0.3, "fc2": 0.2, "fc3": 0.2}


def test_weights_keep_their_names_and_gradients_pass():
    plain = models.create("cnn", image_size=8, seed=3)
    model = add_noise(copy.deepcopy(plain))
    assert list(model.state_dict()) == list(plain.state_dict())
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gradients = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    assert all(g.abs().sum() > 0 for g in gradients)


def test_it_is_made_again_from_its_description():
    name = "buttress.models.blocks.noisy:noisy"
    made = models.create(name, network="cnn", image_size=8, width=3, first=0.4, mean=0.5, std=0.25, seed=1)
    later = add_noise(models.create("cnn", image_size=8, width=3, mean=0.5, std=0.25, seed=1), 0.4)
    for model in (made, later):
        again = models.from_spec(models.spec_of(model))
        stds = [h.std for m in again.modules() for h in m._forward_pre_hooks.values() if isinstance(h, GaussianNoise)]
        assert stds == [0.4, 0.1]
        assert list(again.state_dict()) == list(made.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), later.parameters(), strict=True))
    assert is_noisy(copy.deepcopy(made))


def test_it_takes_from_the_data_what_the_architecture_asks_for():
    told = {"classes": 5, "channels": 2, "image_size": 6, "features": 72}
    x = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    for network in ("cnn", "mlp"):
        model = noisy(network=network, **told)
        assert model(x).shape == (3, 5)
    assert noisy(network="mlp")(x[:, 0, 0, :2]).shape == (3, 2)


def test_the_average_is_of_probabilities():
    model = add_noise(models.create("cnn", image_size=8, classes=3, seed=3), 1.0, 1.0).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        logits = Averaged(model, draws=4)(x)
        torch.manual_seed(5)
        expected = sum(model(x).double().softmax(1) for _ in range(4)) / 4
    torch.testing.assert_close(logits.double().exp(), expected, rtol=1e-5, atol=1e-7)
    plain = models.create("cnn", image_size=8, classes=3, seed=3).eval()
    torch.testing.assert_close(Averaged(plain, draws=3)(x), plain(x).log_softmax(1))


def test_what_cannot_be():
    with pytest.raises(UserError, match="first must be a finite number of 0 or more; got -1"):
        add_noise(two_convolutions(), -1.0)
    with pytest.raises(UserError, match="inner must be a finite number of 0 or more; got nan"):
        noisy(inner=float("nan"))
    with pytest.raises(UserError, match="has noise layers already"):
        add_noise(add_noise(two_convolutions(), 0.0, 0.0))
    with pytest.raises(UserError, match="Flatten has none"):
        add_noise(nn.Flatten())
    with pytest.raises(UserError, match="draws must be a whole number of 1 or more"):
        Averaged(two_convolutions(), 0)
    with pytest.raises(UserError, match="has no option 'depth'"):
        noisy(network="cnn", depth=3)
