"""The noises, and the radii that probabilities under them stand for."""

import math

import pytest
import torch

from buttress.certificates.smoothing import NOISES, lower_bound
from buttress.random import Random


@pytest.mark.parametrize("norm", NOISES)
def test_noise_has_the_deviation_that_was_asked_for(norm):
    noise = NOISES[norm].draw(Random(0, torch.arange(2_000)), 0.3, torch.Size([3, 4]), torch.float64)
    assert noise.shape == (2_000, 3, 4)
    assert noise.dtype == torch.float64
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(noise.mean())) < 0.01


@pytest.mark.parametrize(("n", "ceiling"), [(100, 1.50), (1_000, 2.46), (10_000, 3.20), (100_000, 3.81)])
def test_the_largest_radius_that_so_many_votes_can_show(n, ceiling):
    """At alpha 0.001, in units of sigma; where all votes agree, their lower bound is alpha^(1/n)."""
    found = NOISES["l2"].ceiling(n, 0.001, 0.5) / 0.5
    assert found == pytest.approx(ceiling, abs=0.005)
    assert found == pytest.approx(NOISES["l2"].radius(lower_bound(n, n, 0.001), 1.0), rel=1e-9)


def test_too_few_votes_show_nothing():
    assert NOISES["l2"].ceiling(5, 0.001, 1.0) == 0.0


@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_radii_have_closed_forms(sigma):
    phi = 0.5 * math.erfc(-1.3 / math.sqrt(2))
    assert NOISES["l2"].radius(phi, sigma) == pytest.approx(1.3 * sigma, rel=1e-12)
    assert NOISES["l2"].radius(0.5, sigma) == 0.0
    half = math.sqrt(3) * sigma
    assert NOISES["l1"].radius(0.5, sigma) == 0.0
    assert NOISES["l1"].radius(1.0, sigma) == pytest.approx(half)  # the side of the cube that is left
