"""DDN beside its algorithm written out for one input with autograd."""

import math

import pytest
import torch
from torch.nn import functional as F

from buttress.attacks.minimum_norm.ddn import DDN
from buttress.threat import Threat


def plain_ddn(model, x, y, steps, low, high):
    """Algorithm 1 for one input (1, ...) and gradients that are never zero; the smallest distance found."""
    width = high - low
    delta, radius, smallest = torch.zeros_like(x), width, math.inf
    farthest = float(torch.maximum(x - low, high - x).norm())
    for k in range(steps + 1):
        leaf = (x + delta).requires_grad_()
        logits = model(leaf)
        success = int(logits.argmax()) != int(y)
        if success:
            smallest = min(smallest, float(delta.norm()))
        (grad,) = torch.autograd.grad(F.cross_entropy(logits, y), leaf)
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2
        delta = delta + width * alpha * grad / grad.norm()
        radius = min(radius * (0.95 if success else 1.05), farthest)
        delta = (x + radius * delta / delta.norm()).clamp(low, high) - x
    return smallest


@pytest.mark.parametrize("box", [(0.0, 1.0), (-1.0, 2.0)])
def test_it_is_the_algorithm(nets, box):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    result = DDN(threat=Threat(norm="l2", eps=math.inf, box=box), steps=25)(model, x, y)
    assert result.success.all()
    for row in range(4):
        theirs = plain_ddn(model, x[row : row + 1], y[row : row + 1], 25, *box)
        assert float(result.distance[row]) == pytest.approx(theirs, rel=1e-9)
    assert (result.forwards == 1 + 25 + 1 + 1).all()
    assert (result.backwards == 25).all()


def test_levels_round_the_perturbation(nets):
    model = nets.conv(seed=3)
    x = (torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    y = model(x).argmax(1)
    rounded = DDN(levels=256)(model, x, y)
    free = DDN()(model, x, y)
    assert rounded.success.all()
    levels = (rounded.x_adv - x) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert not torch.allclose((free.x_adv - x) * 255, ((free.x_adv - x) * 255).round(), rtol=0, atol=1e-3)
    assert (rounded.distance >= 0.98 * free.distance).all()


def test_where_the_gradient_is_zero_it_looks_in_a_direction_of_the_inputs_own(nets):
    """A bump that only a far point sees: all that is asked about is on the radius, away from the input."""

    class Flat(torch.nn.Module):
        def forward(self, x):
            inside = (x - 0.5).norm(dim=1) < 0.3
            return 3 * torch.stack([inside.float(), 1 - inside.float()], 1) + 0 * x.sum(1, keepdim=True)

    x, y = torch.full((3, 4), 0.5), torch.zeros(3, dtype=torch.long)
    result = DDN(steps=40)(Flat(), x, y, seed=1)
    assert result.success.all()
    assert (result.distance < 0.32).all()
    directions = (result.x_adv - x) / (result.x_adv - x).norm(dim=1, keepdim=True)
    assert (directions @ directions.T - torch.eye(3)).abs().max() < 0.99


def test_a_radius_that_cannot_get_small_enough_is_told(caplog):
    """In 20 steps from 1 to 0.36 widths of the box; in 200 all inputs are at their distances, of 0.01."""
    x, y, threat = torch.full((3, 2), 0.51), torch.zeros(3).long(), Threat(norm="l2", eps=float("inf"))

    def model(points):
        return torch.stack([points[:, 0] - 0.5, torch.zeros(len(points))], 1)

    far = DDN(threat=threat, steps=20)(model, x, y).distance
    assert "DDN-20's radius was still shrinking for 3 of 3 inputs, whose distances are too long" in caplog.text
    caplog.clear()
    near = DDN(threat=threat, steps=200)(model, x, y).distance
    assert not caplog.text
    assert (far > 10 * near).all()
    torch.testing.assert_close(near, torch.full_like(near, 0.01), rtol=0.1, atol=0)
