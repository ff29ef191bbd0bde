"""Branch and bound against the exact margin, its bounds against inputs, and what its settings do."""

import pytest
import torch
from tests.certificates import pieces
from torch import nn

from buttress import certificates
from buttress.errors import UserError
from buttress.threat import Threat

ORDER = ("ibp", "crown-ibp", "crown", "alpha-crown", "branch-and-bound")


def certified(model, x, y, threat, method="branch-and-bound", **settings):
    return certificates.certify(model, x, y, threat=threat, method=method, **settings)


def same_twice():
    """A network whose margin for class 0 is 0.1 + relu(x) - relu(x), of two units: 0.1 for every input."""
    first, last = nn.Linear(1, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.fill_(1.0), first.bias.zero_()
        last.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]])), last.bias.copy_(torch.tensor([0.1, 0.0]))
    return nn.Sequential(first, nn.ReLU(), last), torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize("leaf", [0, 16])
@pytest.mark.parametrize("name", pieces.HIDDEN)
def test_within_its_gap_of_the_exact_margin(name, leaf):
    model = pieces.network(name)
    x = torch.rand(2, 2)
    y, threat = model(x).argmax(1), Threat(eps=0.3)
    expected = certified(model, x, y, threat, "exact")
    found = certified(model, x, y, threat, gap=0.01, leaf=leaf, steps=3, tried=3 if leaf else 1)
    assert (found.margin <= expected.margin + 1e-4).all()
    assert (found.margin >= expected.margin - 0.0101).all()
    assert torch.equal(found.verified, expected.verified)
    assert torch.equal(found.falsified, expected.falsified)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("seed", range(2))
def test_each_method_is_tighter_and_none_is_above_what_is_met(seed, norm):
    model = pieces.network("two relus", inputs=4, seed=seed)
    x = torch.rand(4, 4)
    y, threat = model(x).argmax(1), Threat(norm=norm, eps=0.2)
    margins = [certified(model, x, y, threat, method).margin for method in ORDER]
    exact = certified(model, x, y, threat, "exact").margin
    for looser, tighter in zip(margins, [*margins[1:], exact], strict=True):
        assert (looser <= tighter + 1e-4).all()
    drawn = threat.project(x + 0.2 * torch.randn(500, 4, 4), x.expand(500, -1, -1))
    met = torch.stack([pieces.margins(model, point, y) for point in drawn])
    assert (exact <= met.amin(0)).all()


def test_verdicts_are_the_exact_ones():
    model = pieces.network("two relus", inputs=3, seed=11)
    x, threat = torch.rand(20, 3), Threat(eps=0.1)
    y = model(x).argmax(1)
    expected, found = (certified(model, x, y, threat, method) for method in ("exact", "branch-and-bound"))
    assert torch.equal(found.verified, expected.verified)
    assert torch.equal(found.falsified, expected.falsified)
    assert found.verified.any()
    assert found.falsified.any()
    assert not found.unknown.any()


def test_what_crown_cannot_verify():
    model, x, y = same_twice()
    threat = Threat(eps=1.0, box=None)
    for method in ("crown", "alpha-crown"):
        assert certified(model, x, y, threat, method).unknown.all()
    for leaf in (0, 16):
        found = certified(model, x, y, threat, leaf=leaf)
        assert found.verified.all()
        assert 0 < found.margin.item() <= 0.1


@pytest.mark.parametrize("settings", [{"time_limit": 1e-9}, {"subproblems": 1}])
def test_cut_off_it_is_unknown_and_no_worse_than_before(settings):
    model, x, y = same_twice()
    threat = Threat(eps=1.0, box=None)
    found = certified(model, x, y, threat, **settings)
    assert found.unknown.all()
    assert found.margin >= certified(model, x, y, threat, "alpha-crown").margin


@pytest.mark.parametrize("smooth", [False, True])
def test_in_l2_bounds_are_tighter_and_hold(smooth):
    model = pieces.network("two relus", seed=11)
    if smooth:
        model[1][2] = nn.Softplus()
    x, eps = torch.rand(2, 2), 0.6
    y, threat = model(x).argmax(1), Threat(norm="l2", eps=eps)
    before = certified(model, x, y, threat, "alpha-crown").margin
    found = certified(model, x, y, threat, gap=0.01, subproblems=40).margin
    assert (found >= before).all()
    if not smooth:
        assert (found > before + 1e-3).any()
    line = torch.linspace(-eps, eps, 101)
    shifts = torch.cartesian_prod(line, line)
    shifts = shifts[shifts.norm(dim=1) <= eps]
    for row in range(2):
        met = pieces.margins(model, (x[row] + shifts).clamp(0, 1), y[row].expand(len(shifts)))
        assert found[row] <= met.min()


def test_an_input_is_bounded_as_when_it_is_alone():
    model = pieces.network("relu", inputs=4, seed=1)
    x, threat = torch.rand(3, 4), Threat(eps=0.25)
    y = model(x).argmax(1)
    together = certified(model, x, y, threat, gap=0.05).margin
    alone = torch.cat([certified(model, x[[row]], y[[row]], threat, gap=0.05).margin for row in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)


def test_budgets_of_single_inputs():
    """In a bisection each input has a budget of its own: the radius is that of the exact method."""
    model = pieces.network("relu", inputs=2)
    x = torch.rand(2, 2)
    y, threat = model(x).argmax(1), Threat(eps=0.3)
    found, expected = (
        certificates.radius(model, x, y, threat=threat, method=method, steps=4) for method in (ORDER[-1], "exact")
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("name", "value"), [("time_limit", 0), ("subproblems", 0), ("gap", -1), ("steps", 0.5), ("leaf", -1), ("tried", 0)]
)
def test_settings_that_mean_nothing(name, value):
    model, x, y = same_twice()
    with pytest.raises(UserError, match=name):
        certified(model, x, y, Threat(eps=0.1, box=None), **{name: value})
