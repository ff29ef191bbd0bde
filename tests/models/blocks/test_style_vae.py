"""The style generator: shapes for any image, levels that stand apart, closed forms of both terms of its bound."""

import pytest
import torch

from buttress.errors import UserError
from buttress.models.blocks.style_vae import StyleBlock, StyleVAE, divergence, reconstruction


@pytest.fixture(scope="module")
def vae(nets):
    """A maker of untrained generators in float64."""
    return lambda *args, **options: nets.seeded(lambda: StyleVAE(*args, **options)).double().eval()


def images(n, *shape):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 6, 6), (1, 4, 4), (2, 9, 5), (1, 1, 1), (1, 40, 36)])
def test_any_image_is_encoded_and_made_again(vae, shape):
    model, y = vae(shape, classes=3, latent=5), torch.tensor([0, 2])
    x = images(2, *shape)
    mean, logvar = model.encode(x, y)
    assert mean.shape == logvar.shape == (2, 5)
    styles, noises = model.invert(x, y)
    assert [s.shape for s in styles] == [(2, 128), (2, 64), (2, 32)]
    assert [n.shape[2:] for n in noises] == [torch.Size(size) for size in model.sizes]
    made = model.generate(styles, noises)
    assert made.shape == x.shape
    assert (made > 0).all()
    assert (made < 1).all()
    assert torch.equal(model(x, y), made)


def test_styles_are_affine_in_code_and_class(vae):
    model, y = vae((1, 8, 8), classes=4, latent=3), torch.tensor([2])
    code = torch.randn(1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for style, layer in zip(model.styles(code, y), model.affine, strict=True):
        torch.testing.assert_close(style[0], layer.weight[:, :3] @ code[0] + layer.weight[:, 3 + 2] + layer.bias)


def test_a_block_is_convolution_noise_relu_norm_and_style(nets):
    block = nets.seeded(lambda: StyleBlock((3, 2), 0.3)).double()
    h, style, noise = images(2, 3, 4, 4), images(2, 4), images(2, 1, 4, 4)
    inner = torch.nn.functional.conv2d(h, block.conv.weight, block.conv.bias, padding=1) + block.strength * noise
    inner = torch.where(inner > 0, inner, 0.2 * inner)
    inner = (inner - inner.mean((2, 3), True)) / (
        inner.std((2, 3), unbiased=False, keepdim=True).square() + 1e-5
    ).sqrt()
    expected = (1 + style[:, :2, None, None]) * inner + style[:, 2:, None, None]
    torch.testing.assert_close(block(h, style, noise), expected, rtol=1e-10, atol=1e-12)


def test_without_classes_labels_make_no_difference(vae):
    model, x = vae((1, 8, 8), classes=0), images(2, 1, 8, 8)
    assert torch.equal(model(x, torch.tensor([0, 1])), model(x, torch.tensor([7, 9])))


def test_the_divergence_is_that_of_two_normals():
    from torch.distributions import Normal, kl_divergence

    mean, logvar = torch.tensor([[0.3, -2.0], [0.0, 0.0]]), torch.tensor([[0.5, -1.0], [0.0, 0.0]])
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, logvar), expected)
    assert divergence(mean, logvar)[1] == 0


def test_the_reconstruction_is_binary_cross_entropy_summed_over_pixels():
    x = torch.tensor([[[[0.0, 1.0, 0.25]]]], dtype=torch.float64)
    p = torch.tensor([[[[0.1, 0.6, 0.5]]]], dtype=torch.float64)
    logs = torch.tensor([0.9, 0.6, 0.5], dtype=torch.float64).log()
    torch.testing.assert_close(reconstruction(p.logit(), x), -logs.sum()[None])


def test_the_spread_is_the_deviation_within_classes(vae):
    model = vae((1, 4, 4), classes=2, widths=(1, 1, 1))
    assert all((s == 1).all() for s in model.spread)
    styles = [torch.tensor([[1.0, 0.0], [3.0, 0.0], [10.0, 5.0], [10.0, 5.0]], dtype=torch.float64)] * 3
    model.measure(styles, torch.tensor([0, 0, 1, 1]))
    for spread in model.spread:
        torch.testing.assert_close(spread, torch.tensor([0.5**0.5, 0.0], dtype=torch.float64))
    assert "spread_low" in model.state_dict()


def test_what_does_not_fit_is_refused(vae):
    model = vae((1, 4, 4), classes=2)
    with pytest.raises(UserError, match=r"makes images of shape \(1, 4, 4\); got inputs \(1, 5, 4\)"):
        model.encode(images(1, 1, 5, 4), torch.tensor([0]))
    with pytest.raises(UserError, match="knows classes 0 to 1; got 0 to 2"):
        model.encode(images(2, 1, 4, 4), torch.tensor([0, 2]))
    with pytest.raises(UserError, match="channels, height, width"):
        StyleVAE((4, 4))
    with pytest.raises(UserError, match="classes must be a whole number"):
        StyleVAE((1, 4, 4), classes=-1)
