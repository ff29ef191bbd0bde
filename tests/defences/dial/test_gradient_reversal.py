"""The identity forward; backward the gradient times minus the strength, to the bit."""

import pytest
import torch

from buttress.defences.dial.defence import reverse_gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 2.5])
def test_the_gradient_is_turned_round(strength, dtype, same):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, generator=generator).to(dtype).requires_grad_()
    g = torch.randn(3, 5, generator=generator).to(dtype)
    y = reverse_gradient(x, strength)
    same(y, x)
    same(torch.autograd.grad(y, x, g)[0], -strength * g)


def test_it_composes():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    value = reverse_gradient(3 * reverse_gradient(x, 0.5), 2.0).square().sum()
    torch.testing.assert_close(torch.autograd.grad(value, x)[0], torch.full_like(x, 18.0))
