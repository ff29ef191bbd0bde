"""Temperature-PGD: its loss by definition and in its limits, and PGD's points where the two must agree."""

import math

import pytest
import torch
import torch.nn.functional as F

from buttress.attacks import PGD, TPGD
from buttress.attacks.gradient.tpgd import tempered_margin
from buttress.errors import UserError
from buttress.losses import margin
from buttress.threat import Threat

GRID = [10.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01]


@pytest.fixture
def logits():
    z = 3 * torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return z, torch.arange(8) % 5


def slope(function, z, *args):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(function(z, *args).sum(), z)[0]


@pytest.mark.parametrize("temperature", GRID)
def test_it_is_the_log_odds_up_to_scale_and_constant(logits, temperature):
    z, y = logits
    odds = []
    for row, k in zip(z / temperature, y, strict=True):
        odds.append(row[torch.arange(5) != k].logsumexp(0) - row[k])
    expected = temperature * (torch.stack(odds) - math.log(4))
    torch.testing.assert_close(tempered_margin(z, y, temperature), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [10.0, 2.0, 1.0, 0.5])
def test_its_gradient_points_as_that_of_cross_entropy(logits, temperature):
    z, y = logits
    ours = slope(tempered_margin, z, y, temperature)
    theirs = slope(lambda z, y: F.cross_entropy(z / temperature, y, reduction="none"), z, y)
    torch.testing.assert_close(F.normalize(ours), F.normalize(theirs))


def test_its_limits_are_the_margin_and_the_mean_difference(logits):
    z, y = logits
    others = (z.sum(1) - z[torch.arange(8), y]) / 4 - z[torch.arange(8), y]
    for cold in (1e-3, 1e-30, 1e-300):
        torch.testing.assert_close(tempered_margin(z, y, cold), margin(z, y), rtol=0, atol=2e-3)
        torch.testing.assert_close(slope(tempered_margin, z, y, cold), slope(margin, z, y), rtol=0, atol=1e-6)
    for hot in (1e6, 1e30, 1e300):
        torch.testing.assert_close(tempered_margin(z, y, hot), others, rtol=0, atol=1e-4)
        assert slope(tempered_margin, z, y, hot).isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_values_and_gradients_stay_finite(scale, classes):
    z = scale * torch.randn(6, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.arange(6) % classes
    for temperature in (1e-300, 1e-12, *GRID, 1e12, 1e300):
        value, grad = tempered_margin(z, y, temperature), slope(tempered_margin, z, y, temperature)
        assert value.isfinite().all()
        torch.testing.assert_close(grad[torch.arange(6), y], -torch.ones(6).double())
        torch.testing.assert_close(grad.sum(1), torch.zeros(6).double(), rtol=0, atol=1e-9)


def test_it_moves_where_cross_entropy_in_float32_does_not(nets):
    model = nets.linear(torch.tensor([[4.0, -1.0], [-1.0, 2.0], [0.0, 1.0]]))
    x, y = torch.tensor([[0.9, 0.1], [0.6, 0.2]]), torch.tensor([0, 0])
    point = x.clone().requires_grad_()
    (vanished,) = torch.autograd.grad(F.cross_entropy(model(point) * 100, y, reduction="sum"), point)
    assert (vanished == 0).all()
    result = TPGD(threat=Threat(eps=0.05), temperature=0.01, start="zero")(model, x, y)
    torch.testing.assert_close(result.x_adv, x + torch.tensor([-0.05, 0.05]))


@pytest.mark.parametrize("target", [None, "least_likely"])
@pytest.mark.parametrize(("temperature", "loss"), [(1e-9, "margin"), (1.0, "cross_entropy")])
def test_it_is_pgd_on_the_margin_when_cold_and_on_cross_entropy_at_one(nets, temperature, loss, target):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(10, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        model[5].weight *= 8
        model[5].bias -= model(x).mean(0)
    y = model(x).argmax(1)
    options = {"threat": Threat(eps=0.05), "steps": 8}
    ours = TPGD(temperature=temperature, **options)(model, x, y, seed=2, target=target)
    theirs = PGD(loss=loss, **options)(model, x, y, seed=2, target=target)
    torch.testing.assert_close(ours.x_adv, theirs.x_adv, rtol=0, atol=1e-12)
    assert torch.equal(ours.forwards, theirs.forwards)


def test_one_logit_models_and_restarts(nets):
    model = nets.linear(torch.tensor([[2.0, -1.0]]))
    x, y = torch.tensor([[0.6, 0.5], [0.2, 0.5]]), torch.tensor([1, 0])
    result = TPGD(threat=Threat(eps=0.3), restarts=3, steps=20)(model, x, y)
    torch.testing.assert_close(result.x_adv, torch.tensor([[0.3, 0.8], [0.5, 0.2]]))
    assert result.success.all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e-320])
def test_temperatures_that_are_none_are_refused(temperature):
    with pytest.raises(UserError, match="temperature must be a finite number"):
        TPGD(temperature=temperature)


def test_what_pgd_refuses_is_refused():
    with pytest.raises(UserError, match="steps must be a whole number of 1 or more"):
        TPGD(steps=0)
    with pytest.raises(UserError, match="start must be one of"):
        TPGD(start="middle")


def test_another_temperature_is_in_the_label():
    """Results are kept by label: two temperatures are two attacks."""
    assert TPGD(steps=20).label() == "T-PGD-20"
    assert TPGD(steps=20, temperature=2.0).label() == "T-PGD-20 (T = 2)"
