"""The statistical perturbations: their distributions, within exact bounds for a fixed seed."""

import pytest
import torch

from buttress.attacks import Gaussian, Pepper, Salt, SaltAndPepper, Speckle, Uniform

N = 200


def moved(noise, x, seed=0):
    return noise.craft(lambda x: torch.zeros(len(x), 3), x, torch.zeros(len(x), dtype=torch.long), seed=seed)


def images(value, channels=1):
    return torch.full((N, channels, 16, 16), value)


def binomial_bounds(count, chance):
    from scipy.stats import binom

    return binom.interval(1 - 1e-6, count, chance)


@pytest.mark.parametrize("std", [0.1, 0.5])
def test_gaussian_has_its_mean_and_spread(std):
    noise = (moved(Gaussian(std=std, box=None), images(0.5)) - 0.5).double()
    count = noise.numel()
    assert abs(noise.mean()) < 5 * std / count**0.5
    assert abs(noise.std() / std - 1) < 5 / (2 * count) ** 0.5
    assert abs((noise / std).pow(4).mean() - 3) < 5 * (96 / count) ** 0.5


def test_uniform_fills_its_range_evenly():
    noise = (moved(Uniform(eps=0.2, box=None), images(0.5)) - 0.5).double()
    count = noise.numel()
    assert abs(noise.mean()) < 5 * 0.2 / (3 * count) ** 0.5
    assert 0.1999 < noise.max() <= 0.2 + 1e-7
    assert -0.2 - 1e-7 <= noise.min() < -0.1999
    for part in range(10):
        share = ((noise >= -0.2 + 0.04 * part) & (noise < -0.16 + 0.04 * part)).sum()
        low, high = binomial_bounds(count, 0.1)
        assert low - 5 <= share <= high + 5  # a few values at the seams round to the other side


def test_speckle_is_in_proportion_to_the_value():
    x = torch.cat([images(0.2)[:100], images(0.6)[:100]])
    noise = moved(Speckle(std=0.3, box=None), x).double() - x.double()
    count = noise[:100].numel()
    for part, value in ((noise[:100], 0.2), (noise[100:], 0.6)):
        assert abs(part.mean()) < 5 * 0.3 * value / count**0.5
        assert abs(part.std() / (0.3 * value) - 1) < 5 / (2 * count) ** 0.5
    assert torch.equal(moved(Speckle(std=0.3), images(0.0)), images(0.0))


@pytest.mark.parametrize("amount", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize(("noise", "value"), [(Salt, 1.0), (Pepper, 0.0)])
def test_salt_and_pepper_alone_turn_their_share(noise, value, amount):
    out = moved(noise(amount=amount), images(0.5))
    turned = out == value
    assert (turned | (out == 0.5)).all()
    low, high = binomial_bounds(turned.numel(), amount)
    assert low <= turned.sum() <= high


def test_salt_and_pepper_together_turn_half_each():
    out = moved(SaltAndPepper(amount=0.3), images(0.5))
    low, high = binomial_bounds(out.numel(), 0.15)
    assert low <= (out == 1).sum() <= high
    assert low <= (out == 0).sum() <= high
    assert ((out == 0.5) | (out == 1) | (out == 0)).all()


@pytest.mark.parametrize("noise", [Salt, Pepper, SaltAndPepper])
def test_a_pixel_turns_with_all_its_channels(noise):
    turned = moved(noise(amount=0.3), images(0.5, channels=3)) != 0.5
    assert torch.equal(turned.any(1), turned.all(1))
    assert 0 < turned.float().mean() < 1


@pytest.mark.parametrize("noise", [Salt, Pepper, SaltAndPepper])
def test_values_of_flat_inputs_turn_one_by_one(noise):
    turned = moved(noise(amount=0.3), torch.full((N, 50), 0.5)) != 0.5
    low, high = binomial_bounds(turned.numel(), 0.3)
    assert low <= turned.sum() <= high
    assert len(turned.unique(dim=0)) > N / 2


def test_black_and_white_are_the_ends_of_the_box_or_the_inputs_own():
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    white, black = moved(Salt(amount=0.5, box=(-0.5, 2.0)), x), moved(Pepper(amount=0.5, box=(-0.5, 2.0)), x)
    assert (white.amax((1, 2, 3)) == 2.0).all()
    assert (black.amin((1, 2, 3)) == -0.5).all()
    both = moved(SaltAndPepper(amount=0.5, box=None), x)
    assert torch.equal(both.amax((1, 2, 3)), x.amax((1, 2, 3)))
    assert torch.equal(both.amin((1, 2, 3)), x.amin((1, 2, 3)))
    alone = moved(SaltAndPepper(amount=0.5, box=None), x[:1])
    assert torch.equal(alone, both[:1])


@pytest.mark.parametrize("noise", [Gaussian(std=2.0), Uniform(eps=2.0), Speckle(std=2.0)])
def test_the_box_holds(noise):
    out = moved(noise, images(0.5))
    assert out.min() == 0
    assert out.max() == 1
