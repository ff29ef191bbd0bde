"""The noise of batches' gradients, and how well distributions fit drawn values."""

import math

import pytest
import torch
from torch import nn

from buttress.audits.privacy.noise import gradient_noise, histogram, laplace_fit
from buttress.layers.example_gradients import batch_gradient
from buttress.tasks import classification


def draws(count=40_000):
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    return -0.3 * uniform.sign() * (1 - 2 * uniform.abs()).log()  # Laplace of scale 0.3


def test_laplace_values_are_known_as_such():
    fit = laplace_fit(draws())
    assert fit["scale"] == pytest.approx(0.3, rel=0.02)
    assert fit["deviation"] == pytest.approx(0.3 * math.sqrt(2), rel=0.02)
    assert fit["laplace"] < 0.01 < 0.05 < fit["gaussian"]
    # E log f_Laplace - E log f_normal = -log(2b) - 1 + log(2 pi 2 b^2) / 2 + 1 / 2, whatever b is.
    assert fit["likelihood"] == pytest.approx(math.log(math.pi) / 2 - 0.5, abs=0.02)


def test_normal_values_are_known_as_such():
    fit = laplace_fit(torch.randn(40_000, generator=torch.Generator().manual_seed(0)))
    assert fit["gaussian"] < 0.01 < 0.03 < fit["laplace"]
    assert fit["likelihood"] < 0


def test_distances_are_those_of_scipy():
    from scipy.stats import kstest, laplace, norm

    values = draws(500)
    fit = laplace_fit(values)
    assert fit["laplace"] == pytest.approx(kstest(values.numpy(), laplace(scale=fit["scale"]).cdf).statistic)
    assert fit["gaussian"] == pytest.approx(kstest(values.numpy(), norm(scale=fit["deviation"]).cdf).statistic)


def test_no_noise_has_no_distribution():
    assert laplace_fit(torch.zeros(5)) == {
        "scale": 0,
        "deviation": 0,
        "laplace": None,
        "gaussian": None,
        "likelihood": None,
    }
    assert sum(histogram(torch.zeros(5))["density"]) > 0


def test_a_histogram_is_a_density():
    found = histogram(draws())
    width = found["middles"][1] - found["middles"][0]
    assert sum(found["density"]) * width == pytest.approx(0.99, abs=0.005)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 4), torch.rand(20, 3), torch.arange(20) % 4


def test_a_batch_of_all_inputs_has_no_noise(linear):
    model, x, y = linear
    noise = gradient_noise(model, x, y, classification, batch=20, batches=2, coordinates=5, seed=0)
    assert noise.shape == (10,)
    assert noise.abs().max() < 1e-7


def test_noise_is_that_of_sampling_without_replacement(linear):
    """Var(batch mean) = S^2 / m (1 - m / n), S^2 the variance of the examples' gradients."""
    model, x, y = linear
    each = torch.stack([batch_gradient(model, x[i : i + 1], y[i : i + 1], classification) for i in range(20)])
    expected = (each.var(0) / 5 * (1 - 5 / 20)).mean().sqrt()
    noise = gradient_noise(model, x, y, classification, batch=5, batches=400, coordinates=16, seed=0)
    assert noise.square().mean().sqrt() == pytest.approx(float(expected), rel=0.05)
    again = gradient_noise(model, x, y, classification, batch=5, batches=400, coordinates=16, seed=0)
    assert torch.equal(again, noise)
