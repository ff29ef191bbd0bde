"""Random corners on networks whose best corner is known."""

import pytest
import torch

from buttress.attacks.black_box.corners import Corners
from buttress.errors import UserError
from buttress.threat import Threat

WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, -1.0]])


def case(nets, count=4):
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    return nets.linear(WEIGHT, torch.zeros(2)), x, torch.zeros(count, dtype=torch.long)


def test_the_worst_corner_of_a_linear_network(nets):
    """Among 3 values there are 8 corners; the margin's best is at eps times the 1-norm of the difference of weights."""
    model, x, y = case(nets)
    model[1].bias.data[0] = 10.0  # none is beaten
    slope = WEIGHT[1] - WEIGHT[0]
    threat = Threat(eps=0.1)
    found = Corners(threat=threat, queries=100)(model, x, y)
    assert not found.success.any()
    assert torch.equal(found.x_adv, threat.project(x + 0.1 * slope.sign(), x))
    logits = model(found.x_adv)
    assert torch.allclose(logits[:, 1] - logits[:, 0], x @ slope - 10 + 0.1 * slope.abs().sum(), atol=1e-5)
    assert (found.forwards == 101).all()
    assert (found.backwards == 0).all()


def test_corners_are_clipped_to_the_box(nets):
    model, x, y = case(nets)
    x[:, 0] = 0.95
    found = Corners(threat=Threat(eps=0.3), queries=3)(model, x, y)
    low, high = (x - 0.3).clamp(0, 1), (x + 0.3).clamp(0, 1)
    at_an_end = torch.isclose(found.x_adv, low, atol=1e-6) | torch.isclose(found.x_adv, high, atol=1e-6)
    assert at_an_end.all()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_in_other_norms_the_budget_is_used_up(nets, norm):
    model, x, y = case(nets)
    found = Corners(threat=Threat(norm=norm, eps=0.1), queries=2)(model, x, y)
    assert found.distance.tolist() == pytest.approx([0.1] * 4, rel=1e-5)
    steps = (found.x_adv - x).abs()
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), atol=1e-6)


@pytest.mark.parametrize("search", ["full", "first"])
def test_what_is_beaten_is_asked_about_no_more(nets, search):
    model, x, y = case(nets)
    weak = WEIGHT[1] - WEIGHT[0]
    model[1].bias.data[1] = -float((x @ weak).max()) - 0.05  # all are right, the weakest by little
    found = Corners(threat=Threat(eps=0.2), queries=200)(model, x, y, search=search)
    assert found.success.all()
    assert (found.forwards < 60).all()


def test_no_corner_at_all_is_refused():
    with pytest.raises(UserError, match="queries must be a whole number of 1 or more; got 0"):
        Corners(queries=0)
    with pytest.raises(UserError, match="eps"):
        Corners(threat=Threat(eps=float("inf"), box=None))
