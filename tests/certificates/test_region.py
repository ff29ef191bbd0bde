"""The least value of a linear function within a threat, against solvers."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from buttress.certificates.bounds.region import Region
from buttress.threat import Threat
from buttress.threat.row_threat import RowThreat


def solved(slope, x, threat):
    """By linear programming (linf, l1), or by SLSQP from several starts (l2)."""
    low, high = (end[0].double().numpy() for end in Threat(norm="linf", eps=threat.eps, box=threat.box).cube(x))
    x, slope = x[0].double().numpy(), slope.double().numpy()
    if threat.norm == "linf":
        return linprog(slope, bounds=list(zip(low, high, strict=True))).fun
    if threat.norm == "l1":
        # x + up - down, both not negative, their sum at most eps.
        size = len(x)
        bounds = [(0, limit) for limit in high - x] + [(0, limit) for limit in x - low]
        answer = linprog(np.r_[slope, -slope], A_ub=np.ones((1, 2 * size)), b_ub=[threat.eps], bounds=bounds)
        return float(slope @ x) + answer.fun
    ball = {"type": "ineq", "fun": lambda d: threat.eps**2 - d @ d, "jac": lambda d: -2 * d}
    answer = minimize(
        lambda d: slope @ d,
        -1e-3 * slope,
        jac=lambda d: slope,
        bounds=list(zip(low - x, high - x, strict=True)),
        constraints=ball,
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return float(slope @ x) + answer.fun


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("eps", [0.05, 0.5, 2.0])
def test_least_value_is_the_solvers(norm, seed, eps):
    torch.manual_seed(seed)
    x, slope = torch.rand(1, 7), torch.randn(1, 1, 7)
    threat = Threat(norm=norm, eps=eps)
    region = Region(threat, x)
    expected = solved(slope[0, 0], x, threat)
    assert region.least(slope).item() == pytest.approx(expected, abs=2e-4)
    assert region.least(slope).item() <= expected + 1e-5
    point = region.minimiser(slope)
    assert threat.contains(point[0], x).all()
    assert (point[0] * slope[0]).sum().item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_without_a_box_it_is_the_dual_norm(norm):
    x, slope = torch.randn(4, 3, 2), torch.randn(5, 4, 3, 2)
    region = Region(Threat(norm=norm, eps=0.7, box=None), x)
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    expected = (slope * x).flatten(2).sum(2) - 0.7 * slope.flatten(2).norm(dual, dim=2)
    torch.testing.assert_close(region.least(slope), expected, atol=1e-4, rtol=1e-4)


def test_fixed_features_and_budgets_of_single_inputs():
    x, slope = torch.full((2, 3), 0.5), torch.ones(1, 2, 3)
    masked = Region(Threat(eps=0.1, mask=torch.tensor([True, False, True])), x)
    torch.testing.assert_close(masked.least(slope), torch.full((1, 2), 1.3))
    for norm, expected in (("linf", [1.2, 0.9]), ("l2", [1.5 - 0.1 * 3**0.5, 1.5 - 0.2 * 3**0.5]), ("l1", [1.4, 1.3])):
        rows = Region(RowThreat.of(Threat(norm=norm, eps=0.2), torch.tensor([0.5, 1.0])), x)
        torch.testing.assert_close(rows.least(slope), torch.tensor([expected]), atol=1e-4, rtol=0)
