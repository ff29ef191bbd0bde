"""FMN: its projection, its cost, and the sparsity that l1 asks for."""

import math

import pytest
import torch

from buttress.attacks.minimum_norm.fmn import FMN, onto_ball
from buttress.threat import Threat, norms


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_each_row_is_projected_onto_its_own_ball(norm):
    delta = torch.randn(6, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    radius = torch.tensor([0.0, 1e-3, 0.1, 0.7, 3.0, 100.0], dtype=torch.float64)
    projected = onto_ball(delta, radius, Threat(norm=norm))
    zeros = torch.zeros_like(delta[:1])
    for row in range(6):
        alone = Threat(norm=norm, eps=float(radius[row]), box=None).project(delta[row : row + 1], zeros)
        torch.testing.assert_close(projected[row : row + 1], alone, rtol=1e-9, atol=1e-12)
    assert (norms(projected, norm) <= radius * (1 + 1e-12)).all()
    assert torch.equal(projected[5], delta[5])


def test_in_l1_only_the_steepest_coordinate_moves(nets):
    weight = torch.tensor([[0.5, 1.0, -3.0, 0.7]], dtype=torch.float64)
    x, y = torch.full((2, 4), 0.5, dtype=torch.float64), torch.tensor([0, 1])
    model = nets.linear(weight, torch.tensor([0.9], dtype=torch.float64))
    height = (x @ weight.T + 0.9)[:, 0]
    y = (height > 0).long()
    result = FMN(threat=Threat(norm="l1", eps=math.inf))(model, x, y)
    moved = (result.x_adv - x).abs()
    assert (moved[:, [0, 1, 3]].sum(1) < 1e-3 * moved[:, 2]).all()
    torch.testing.assert_close(result.distance, height.abs() / 3, rtol=0.01, atol=0)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_a_coordinate_that_the_box_blocks_does_not_hold_it_up(nets, norm):
    """All the weight on a coordinate at the edge: what is cut off there must not shrink the ball."""
    weight = torch.tensor([[10.0, 1.0, 1.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0.2, 0.3]], dtype=torch.float64)
    model = nets.linear(weight, torch.tensor([-11.0], dtype=torch.float64))  # 1 where the two others sum to 1
    result = FMN(threat=Threat(norm=norm, eps=math.inf), steps=200)(model, x, torch.tensor([0]))
    assert result.success.all()
    exact = {"l1": 0.5, "l2": 0.5 / math.sqrt(2), "linf": 0.25}[norm]
    assert exact - 1e-9 <= float(result.distance) <= 1.02 * exact


def test_the_cost_is_told_exactly(nets):
    model = nets.conv(seed=3)
    x = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    result = FMN(steps=12)(model, x, model(x).argmax(1))
    assert (result.forwards == 1 + 12 + 1 + 1).all()
    assert (result.backwards == 12).all()
