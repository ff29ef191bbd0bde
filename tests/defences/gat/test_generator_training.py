"""Training of the style generator: its bound against the formula, and what follows from the seed."""

import pytest
import torch

from buttress.data.dataset import Split
from buttress.defences.gat.generator_training import bound, style_vae
from buttress.errors import UserError
from buttress.models.blocks.style_vae import StyleVAE


def test_the_bound_is_reconstruction_and_divergence_of_one_draw(nets, batch):
    model = nets.seeded(lambda: StyleVAE((1, 6, 6), 4, 3)).double()
    value = bound(model, batch.x, batch.y, torch.Generator().manual_seed(3), 0.7)
    random = torch.Generator().manual_seed(3)
    mean, logvar = model.encode(batch.x, batch.y)
    code = mean + (0.5 * logvar).exp() * torch.randn(8, 3, generator=random).double()
    noises = [torch.randn(8, 1, s, s, generator=random).double() for s in (2, 4, 8)]
    p = model.generate(model.styles(code, batch.y), noises)
    likelihood = (batch.x * p.log() + (1 - batch.x) * (1 - p).log()).sum((1, 2, 3))
    divergence = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(1)
    torch.testing.assert_close(value, (0.7 * divergence - likelihood).mean(), rtol=1e-9, atol=0)


def test_the_same_seed_gives_the_same_generator_frozen(images, same):
    state = torch.random.get_rng_state()
    first, again, other = (style_vae(images.train, 4, seed=seed, epochs=2) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    same(first.state_dict(), again.state_dict())
    assert not torch.equal(first.constant, other.constant)
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    assert not any((spread == 1).all() for spread in first.spread)


def test_training_brings_reconstructions_nearer(images):
    x, y, _ = images.train.take(torch.arange(36))
    errors = [(style_vae(images.train, 4, seed=0, epochs=n, lr=3e-3)(x, y) - x).square().mean() for n in (0, 40)]
    assert errors[1] < 0.5 * errors[0]


def test_another_box_is_brought_to_the_unit(images, same):
    x, y, ids = images.train.take(torch.arange(36))
    x = (256 * x).round() / 256  # so that there and back again is exact
    wide = Split(4 * x - 2, y, ids)
    one, other = style_vae(Split(x, y, ids), 4, seed=0, epochs=1), style_vae(wide, 4, seed=0, epochs=1, box=(-2.0, 2.0))
    same(one.state_dict(), other.state_dict())


def test_the_divergence_of_small_images_weighs_less(images, same):
    """36 values of 784, unless said otherwise."""
    usual, one, said = (style_vae(images.train, 4, seed=0, epochs=7, beta=b) for b in (None, 1.0, 36 / 784))
    same(usual.state_dict(), said.state_dict())
    assert not torch.equal(usual.code.weight, one.code.weight)


def test_what_is_no_image_is_refused():
    flat = Split(torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    with pytest.raises(UserError, match="needs images"):
        style_vae(flat, 2, seed=0)
    square = Split(torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    with pytest.raises(UserError, match="epochs must be a whole number of 0 or more; got -1"):
        style_vae(square, 2, seed=0, epochs=-1)
