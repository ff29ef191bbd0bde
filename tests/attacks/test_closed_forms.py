"""Linear models, where the strongest perturbation is known in closed form."""

import pytest
import torch

from buttress import registry
from buttress.threat import Threat

GRADIENT = ["fgsm", "bim", "mi-fgsm", "pgd", "apgd"]
WEIGHT = torch.tensor([0.9, -2.0, 0.3, 1.1, -0.2, 0.05, -1.3, 0.7, 0.4, -0.6], dtype=torch.float64)


def make(name, threat):
    extra = {} if name == "fgsm" else {"steps": 60}
    if name in ("bim", "mi-fgsm", "pgd"):
        extra["step_size"] = threat.eps / 4
    return registry.attack.get(name)(threat=threat, **extra)


def data(n=9):
    x = torch.rand(n, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x, torch.arange(n) % 2


def binary(nets, logits, dtype=torch.float64):
    """One logit w.x, or two logits: the direction that hurts is w for the truth 0 and -w for the truth 1."""
    weight = WEIGHT.to(dtype)
    return nets.linear(weight[None] if logits == 1 else torch.stack([-weight / 2, weight / 2]))


def hurting(y):
    """(N, 1) the sign of the direction along the weight; a target 1 - y asks for the same."""
    return (1.0 - 2.0 * y.double())[:, None]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("logits", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GRADIENT)
def test_linf_optimum_in_the_box_is_reached_exactly(nets, name, dtype, logits, targeted):
    x, y = data()
    sign = hurting(y)
    x = x.to(dtype)
    result = make(name, Threat(eps=0.3))(binary(nets, logits, dtype), x, y, target=1 - y if targeted else None)
    best = (x.double() + 0.3 * sign * WEIGHT.sign()).clamp(0, 1)
    torch.testing.assert_close(result.x_adv.double(), best, rtol=0, atol=1e-7 if dtype == torch.float32 else 1e-15)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", GRADIENT)
def test_l2_optimum_without_a_box(nets, name, targeted):
    x, y = data()
    result = make(name, Threat(norm="l2", eps=0.5, box=None))(binary(nets, 1), x, y, target=1 - y if targeted else None)
    gained = ((result.x_adv - x) * hurting(y) * WEIGHT).sum(1)
    best = 0.5 * WEIGHT.norm()
    assert (gained <= best).all()
    tolerance = 1e-3 if name == "apgd" else 1e-9  # a random start is forgotten by and by
    torch.testing.assert_close(gained, best.expand(9), rtol=tolerance, atol=0)


@pytest.mark.parametrize("targeted", [False, True])
def test_apgd_spends_the_l1_ball_on_the_two_largest_weights(nets, targeted):
    """As released: two coordinates over 1.5, rounded up, are two again, which move alike from wherever they were."""
    x, y = data()
    threat = Threat(norm="l1", eps=0.5, box=None)
    result = make("apgd", threat)(binary(nets, 1), x, y, target=1 - y if targeted else None)
    moved = (x - result.x_adv) * hurting(y)
    largest = WEIGHT.abs().topk(2).indices
    torch.testing.assert_close(moved[:, largest].abs().sum(1), torch.full((9,), 0.5).double(), rtol=0, atol=1e-9)
    assert (moved[:, largest] * WEIGHT[largest] <= 0).all()
    assert int((moved != 0).sum()) == int((moved[:, largest] != 0).sum())


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", [name for name in GRADIENT if name != "apgd"])
def test_l1_optimum_without_a_box_is_all_on_the_largest_weight(nets, name, targeted):
    x, y = data()
    result = make(name, Threat(norm="l1", eps=0.5, box=None))(binary(nets, 1), x, y, target=1 - y if targeted else None)
    best = x.clone()
    best[:, 1] -= 0.5 * hurting(y)[:, 0]
    torch.testing.assert_close(result.x_adv, best, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", GRADIENT)
def test_beaten_means_that_the_sign_of_the_logit_changed(nets, name):
    x, _ = data(40)
    x, eps = x - 0.5, 0.1
    logit = x @ WEIGHT
    y = (logit > 0).long()
    result = make(name, Threat(eps=eps, box=None))(binary(nets, 1), x, y)
    assert torch.equal(result.success, logit.abs() < eps * WEIGHT.abs().sum())
    assert 0 < result.success.sum() < 40
    torch.testing.assert_close(result.distance, torch.full((40,), eps, dtype=torch.float64))
    z = result.x_adv @ WEIGHT
    torch.testing.assert_close(result.loss, torch.nn.functional.softplus(torch.where(y == 1, -z, z)))
