"""Gamma distributions against torch.distributions, scipy, draws and finite differences."""

import pytest
import torch
from scipy.stats import gamma as known

from buttress.models.blocks.gamma import Gamma, attached, quantile

SHAPES = torch.tensor([0.05, 0.6, 2.0, 30.0, 1e4], dtype=torch.float64)
LEVELS = (torch.arange(10, dtype=torch.float64) + 0.5)[:, None] / 10


def pair():
    one = Gamma(torch.tensor([2.5, 0.7], dtype=torch.float64), torch.tensor([1.5, 3.0], dtype=torch.float64))
    other = Gamma(torch.tensor(2.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64))
    return one, other


def test_the_divergence_is_that_of_torch_and_of_draws():
    one, other = pair()
    ours, theirs = (torch.distributions.Gamma(q.shape, q.rate) for q in pair())
    assert torch.allclose(one.kl(other), torch.distributions.kl_divergence(ours, theirs), rtol=1e-10)
    assert torch.equal(other.kl(other), torch.zeros((), dtype=torch.float64))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        t = one.draw(200_000)
    ratio = ours.log_prob(t) - theirs.log_prob(t)
    assert (ratio.mean(0) - one.kl(other)).abs().le(4 * ratio.std(0) / len(t) ** 0.5).all()


def test_density_mean_and_deviation():
    one, _ = pair()
    theirs, t = torch.distributions.Gamma(one.shape, one.rate), torch.tensor([[0.1], [1.0], [3.5]], dtype=torch.float64)
    assert torch.allclose(one.density(t), theirs.log_prob(t).exp(), rtol=1e-10)
    assert torch.allclose(one.mean, theirs.mean)
    assert torch.allclose(one.std, theirs.stddev)


def test_quantiles_are_scipys():
    found = quantile(SHAPES, LEVELS)
    assert torch.allclose(found, torch.from_numpy(known.ppf(LEVELS.numpy(), SHAPES.numpy())), rtol=1e-9, atol=0)
    one, _ = pair()
    expected = known.ppf(LEVELS.numpy(), one.shape.numpy(), scale=1 / one.rate.numpy())
    assert torch.allclose(one.quantiles(10), torch.from_numpy(expected), rtol=1e-9)


def test_gradients_of_quantiles_are_their_finite_differences():
    shape = SHAPES.clone().requires_grad_()
    out = attached(shape.expand(10, -1), quantile(SHAPES, LEVELS))
    h = 1e-5 * SHAPES
    expected = (quantile(SHAPES + h, LEVELS) - quantile(SHAPES - h, LEVELS)) / (2 * h)
    for row, slope in zip(out, expected, strict=True):
        (grad,) = torch.autograd.grad(row.sum(), shape, retain_graph=True)
        assert torch.allclose(grad, slope, rtol=1e-5)


def test_second_derivatives_are_finite_differences_of_the_first():
    level = torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64)

    def slope(shape):
        shape = shape.detach().requires_grad_()
        out = attached(shape, quantile(shape.detach(), level))
        (grad,) = torch.autograd.grad(out.sum(), shape, create_graph=True)
        return grad, shape

    at = torch.tensor([0.8, 2.0, 9.0], dtype=torch.float64)
    grad, shape = slope(at)
    (second,) = torch.autograd.grad(grad.sum(), shape)
    h = 1e-3
    expected = (slope(at + h)[0] - slope(at - h)[0]).detach() / (2 * h)
    assert torch.allclose(second, expected, rtol=1e-3)


def test_draws_have_torchs_implicit_gradients_and_its_random_state():
    shape, rate = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (2.0, 3.0))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        ours = Gamma(shape, rate).draw(20)
        torch.manual_seed(5)
        theirs = torch.distributions.Gamma(shape, rate).rsample((20,))
    assert torch.allclose(ours, theirs)
    found = torch.autograd.grad(ours.sum(), (shape, rate))
    expected = torch.autograd.grad(theirs.sum(), (shape, rate))
    assert all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [0.01, 5.0])
def test_many_levels_of_extreme_shapes_stay_finite(shape):
    values = Gamma(torch.full((1,), shape, dtype=torch.float64), torch.ones(1, dtype=torch.float64)).quantiles(50)
    assert values.isfinite().all()
    assert (values.diff(dim=0) > 0).all()
