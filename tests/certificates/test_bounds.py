"""Bounds are bounds: of every layer that can be bounded, in every norm, each method tighter than the one before."""

from itertools import pairwise

import pytest
import torch
from tests.certificates import zoo
from torch import nn

from buttress import certificates
from buttress.threat import Threat

BUDGETS = {"linf": 0.03, "l2": 0.2, "l1": 0.5}
ORDER = ("ibp", "crown-ibp", "crown", "alpha-crown")


def worst_found(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat) -> torch.Tensor:
    """(N,) the smallest margin that projected gradient descent meets."""
    found = zoo.least_margin(model, x, y).detach()
    point = threat.project(x + threat.eps * torch.randn_like(x), x)
    for _ in range(12):
        point = point.detach().requires_grad_()
        margin = zoo.least_margin(model, point, y)
        found = torch.minimum(found, margin.detach())
        (grad,) = torch.autograd.grad(margin.sum(), point)
        point = threat.project(threat.ascend(point.detach(), -grad, threat.eps / 4), x)
    return found


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("name", sorted(zoo.ACTIVATIONS | zoo.PARTS))
def test_no_attack_goes_below_and_each_method_is_tighter(name, norm):
    torch.manual_seed(1)
    model, x = zoo.network(name), torch.rand(3, *zoo.SHAPE)
    x[0] = (x[0] > 0.5).float()  # at the box's ends
    y = model(x.clone()).argmax(1)
    threat = Threat(norm=norm, eps=BUDGETS[norm])
    margins = {}
    for method in ORDER:
        settings = {"steps": 3} if method == "alpha-crown" else {}
        margins[method] = certificates.certify(model, x, y, threat=threat, method=method, **settings).margin
    for looser, tighter in pairwise(ORDER):
        assert (margins[looser] <= margins[tighter] + 1e-5).all()
    assert (margins["alpha-crown"] <= worst_found(model, x, y, threat)).all()
    assert margins["ibp"].isfinite().all()


@pytest.mark.parametrize("norm", BUDGETS)
def test_without_a_budget_the_margin_is_that_of_the_input(norm):
    model, x = zoo.network("gelu"), torch.rand(3, *zoo.SHAPE)
    y = torch.tensor([0, 1, 2])
    for method in ORDER:
        found = certificates.certify(model, x, y, threat=Threat(norm=norm, eps=0.0), method=method).margin
        torch.testing.assert_close(found, zoo.least_margin(model, x, y).detach(), atol=1e-3, rtol=0)


def test_one_layer_of_relus_by_hand():
    """x in [-1, 1]^2, h = relu(x1 + x2), relu(x1 - x2); logits 0 and h1 - h2 + 3: CROWN and intervals by hand."""
    first, last = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]])), first.bias.zero_()
        last.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]])), last.bias.copy_(torch.tensor([0.0, 3.0]))
    model = nn.Sequential(first, nn.ReLU(), last)
    x, y, threat = torch.zeros(1, 2), torch.ones(1, dtype=torch.long), Threat(eps=1.0, box=None)
    # Intervals: h in [0, 2], so 3 + 0 - 2 = 1. CROWN: h1 >= x1 + x2 (slope 1 where u >= -l), h2 <= (x1 - x2) / 2 + 1,
    # so 3 - 1 + x1/2 + 3 x2/2 >= 0 with slope 1; with slope 0 the bound is 3 - 1 - x1/2 + x2/2 >= 1.
    assert certificates.certify(model, x, y, threat=threat, method="ibp").margin.item() == pytest.approx(1, abs=1e-4)
    # CROWN keeps the larger of its own bound, 0, and that of the intervals; optimised slopes find 1 and no more.
    assert certificates.certify(model, x, y, threat=threat, method="crown").margin.item() == pytest.approx(1, abs=1e-4)
    optimised = certificates.certify(model, x, y, threat=threat, method="alpha-crown", steps=100)
    assert optimised.margin.item() == pytest.approx(1, abs=1e-3)


def test_optimised_slopes_are_tighter_and_within_still_more():
    gained = torch.zeros(2)
    for seed in range(3):
        model, x = zoo.mlp(seed, (5, 12, 12, 3)), torch.rand(4, 5, generator=torch.Generator().manual_seed(seed))
        y = model(x).argmax(1)
        threat = Threat(eps=0.3)
        crown, outside, within = (
            certificates.certify(model, x, y, threat=threat, method=method, **settings).margin
            for method, settings in (
                ("crown", {}),
                ("alpha-crown", {"steps": 8}),
                ("alpha-crown", {"steps": 8, "within": True}),
            )
        )
        assert (crown <= outside + 1e-5).all()
        assert (crown <= within + 1e-5).all()
        assert (torch.maximum(outside, within) <= worst_found(model, x, y, threat)).all()
        gained += torch.stack([outside - crown, within - outside]).sum(1)
    assert (gained > 0.01).all()


NETWORKS = {
    "mlp": (lambda: zoo.mlp(0, (8, 16, 16, 4)), (8,)),
    "two convolutions": (lambda: zoo.network("grouped convolution", 2), zoo.SHAPE),
    "residual": (lambda: zoo.network("residual", 1), zoo.SHAPE),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_method_is_tighter_on_200_inputs(name):
    """Each looser bound is below the tighter one, all below what an attack finds, and tighter ones verify more."""
    made, shape = NETWORKS[name]
    model, x = made(), torch.rand(200, *shape, generator=torch.Generator().manual_seed(7))
    y = model(x).argmax(1)
    radii = certificates.radius(model, x[:20], y[:20], threat=Threat(eps=0.5), steps=6)
    threat = Threat(eps=float(radii.median()))  # within which about half of the inputs are verified
    found = [
        certificates.certify(model, x, y, threat=threat, method=method, batch_size=100, **settings)
        for method, settings in ((m, {"steps": 3} if m == "alpha-crown" else {}) for m in ORDER)
    ]
    for looser, tighter in pairwise(found):
        assert (looser.margin <= tighter.margin + 1e-5).all()
    assert (found[-1].margin <= worst_found(model, x, y, threat)).all()
    verified = [int(certificate.verified.sum()) for certificate in found]
    assert verified[0] <= verified[2]
    assert verified[2] > 20
