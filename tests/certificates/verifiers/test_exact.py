"""The exact margin against grids, enumeration, and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from tests.certificates import pieces
from torch import nn

from buttress import certificates
from buttress.errors import UserError
from buttress.threat import Threat


def exact(model, x, y, threat, **settings):
    return certificates.certify(model, x, y, threat=threat, method="exact", **settings)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("name", pieces.HIDDEN)
def test_least_margin_of_a_dense_grid(name, norm):
    model = pieces.network(name)
    x = torch.rand(3, 2)
    y, threat = model(x).argmax(1), Threat(norm=norm, eps=0.3)
    found, least = exact(model, x, y, threat), pieces.on_grid(model, x, y, threat)
    assert (found.margin <= least).all()
    torch.testing.assert_close(found.margin, least, atol=0.05, rtol=0)
    assert (found.verified == (least > 0)).all()
    assert (found.falsified == (least <= 0)).all()
    assert threat.contains(found.x_adv, x).all()
    assert (pieces.margins(model, found.x_adv, y)[found.falsified] < 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_least_of_the_linear_programs_of_all_patterns(seed):
    """A layer of five ReLUs: each of the 32 patterns is a linear program."""
    torch.manual_seed(seed)
    first, last = nn.Linear(4, 5), nn.Linear(5, 2)
    model, x = nn.Sequential(first, nn.ReLU(), last), torch.rand(1, 4)
    y, eps = model(x).argmax(1), 0.4
    w, b = (p.detach().double().numpy() for p in first.parameters())
    v, c = (p.detach().double().numpy() for p in last.parameters())
    true = int(y)
    v, c = v[true] - v[1 - true], c[true] - c[1 - true]
    ends = [(max(0, float(p) - eps), min(1, float(p) + eps)) for p in x[0]]
    least = np.inf
    for pattern in itertools.product([0.0, 1.0], repeat=5):
        on = np.array(pattern)
        side = 1 - 2 * on  # on: w x + b >= 0
        answer = linprog((v * on) @ w, A_ub=side[:, None] * w, b_ub=-side * b, bounds=ends)
        least = min(least, answer.fun + (v * on) @ b + c) if answer.status == 0 else least
    found = exact(model, x, y, Threat(eps=eps)).margin.item()
    assert found == pytest.approx(least, abs=1e-4)
    assert found <= least


def test_a_linear_network_in_closed_form():
    model, x = nn.Linear(6, 3), torch.rand(4, 6)
    y = torch.tensor([0, 1, 2, 0])
    for norm, dual in (("linf", 1), ("l1", torch.inf)):
        found = exact(model, x, y, Threat(norm=norm, eps=0.2, box=None)).margin
        rows = model.weight[y][:, None] - model.weight
        each = model(x).gather(1, y[:, None]) - model(x) - 0.2 * rows.norm(dual, dim=2)
        expected = each.scatter(1, y[:, None], torch.inf).amin(1)
        torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=0)


def test_without_time_the_bounds_are_those_of_crown():
    model, x = pieces.network("two relus"), torch.rand(4, 2)
    y, threat = model(x).argmax(1), Threat(eps=0.3)
    crown = certificates.certify(model, x, y, threat=threat, method="crown")
    found = exact(model, x, y, threat, time_limit=1e-9)
    assert torch.equal(found.margin, crown.margin)
    assert torch.equal(found.verified, crown.verified)


def test_radius_of_an_input():
    """|x| < 0.5 is class 0: from 0.2 it is 0.3 to the border."""
    first, last = nn.Linear(1, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0]])), first.bias.zero_()
        last.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]])), last.bias.copy_(torch.tensor([0.5, 0.0]))
    model, x = nn.Sequential(first, nn.ReLU(), last), torch.tensor([[0.2], [-0.4]])
    threat = Threat(eps=1.0, box=None)
    found = certificates.radius(model, x, torch.zeros(2, dtype=torch.long), threat=threat, method="exact", steps=8)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.1]).double(), atol=5e-3, rtol=0)


def test_refused():
    x, y = torch.rand(1, 2), torch.zeros(1, dtype=torch.long)
    smooth = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 2))
    with pytest.raises(UserError, match=r"cannot encode gelu in layer 1: exact is for functions of linear pieces"):
        exact(smooth, x, y, Threat(eps=0.1))
    with pytest.raises(UserError, match=r'exact is for linf and l1.*method="branch-and-bound"'):
        exact(nn.Linear(2, 2), x, y, Threat(norm="l2", eps=0.1))
    with pytest.raises(UserError, match="time_limit"):
        exact(nn.Linear(2, 2), x, y, Threat(eps=0.1), time_limit=0)
