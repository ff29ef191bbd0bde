"""The attacks against loops written out plainly here, on a small convolutional network in float64."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks import APGD, MIFGSM, PGD
from buttress.attacks.gradient.apgd import checkpoints
from buttress.random import Random, derive
from buttress.threat import Threat


@pytest.fixture(scope="module")
def case(nets):
    model = nets.conv(seed=3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(10, 1, 6, 6, dtype=torch.float64, generator=generator)
    with torch.no_grad():  # fresh weights see all inputs alike: tell them apart
        model[5].weight *= 8
        model[5].bias -= model(x).mean(0)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4  # one that is wrong from the start
    return model, x, y


def draws(n, seed):
    return Random(derive(seed, "attack"), torch.arange(n))


def gradient(model, x, y):
    x = x.clone().requires_grad_()
    logits = model(x)
    loss = F.cross_entropy(logits, y, reduction="none")
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0], logits.argmax(1) != y


def ball(x_adv, x, norm, eps):
    """linf within the box (0, 1); l2 without a box."""
    if norm == "linf":
        return (x + (x_adv - x).clamp(-eps, eps)).clamp(0, 1)
    delta = x_adv - x
    size = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return x + delta * (eps / size).clamp(max=1)


def ascent(grad, norm):
    return grad.sign() if norm == "linf" else grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def test_checkpoints_of_a_hundred_steps():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(("steps", "expected"), [(1, [1]), (2, [1, 2]), (10, [2, 3, 4, 5, 6, 7, 8, 9, 10])])
def test_checkpoints_of_few_steps(steps, expected):
    assert checkpoints(steps) == expected


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4)])
def test_pgd(case, norm, eps):
    model, x, y = case
    threat = Threat(norm=norm, eps=eps, box=(0.0, 1.0) if norm == "linf" else None)
    x_adv = threat.random_start(x, draws(10, seed=6))
    for _ in range(10):
        x_adv = ball(x_adv + eps / 4 * ascent(gradient(model, x_adv, y)[1], norm), x, norm, eps)
    result = PGD(threat=threat, steps=10)(model, x, y, seed=6)
    torch.testing.assert_close(result.x_adv, x_adv, rtol=0, atol=1e-12)
    assert torch.equal(result.success, model(x_adv).argmax(1) != y)
    torch.testing.assert_close(result.loss, gradient(model, x_adv, y)[0])


def test_pgd_keeps_the_restart_with_the_highest_loss(case):
    model, x, y = case
    threat, random = Threat(eps=0.05), draws(10, seed=6)
    best, best_loss = x, torch.full((10,), -1.0, dtype=torch.float64)
    for _ in range(3):
        x_adv = threat.random_start(x, random)
        for _ in range(2):
            x_adv = ball(x_adv + 0.01 * gradient(model, x_adv, y)[1].sign(), x, "linf", 0.05)
        loss = gradient(model, x_adv, y)[0]
        best = torch.where((loss > best_loss).view(-1, 1, 1, 1), x_adv, best)
        best_loss = torch.maximum(loss, best_loss)
    result = PGD(threat=threat, steps=2, step_size=0.01, restarts=3)(model, x, y, seed=6)
    torch.testing.assert_close(result.x_adv, best, rtol=0, atol=1e-12)


def test_pgd_start_of_trades(case):
    model, x, y = case
    start = x + 0.001 * draws(10, seed=1).normal((1, 6, 6), torch.float64)
    x_adv = ball(start + 0.01 * gradient(model, start, y)[1].sign(), x, "linf", 0.05)
    result = PGD(threat=Threat(eps=0.05), steps=1, step_size=0.01, start="normal")(model, x, y, seed=1)
    torch.testing.assert_close(result.x_adv, x_adv, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4)])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_mifgsm(case, norm, eps, decay):
    model, x, y = case
    x_adv, total = x, torch.zeros_like(x)
    for _ in range(7):
        grad = gradient(model, x_adv, y)[1]
        total = decay * total + grad / grad.abs().mean((1, 2, 3), keepdim=True)
        x_adv = ball(x_adv + 0.02 * ascent(total, norm), x, norm, eps)
    threat = Threat(norm=norm, eps=eps, box=(0.0, 1.0) if norm == "linf" else None)
    result = MIFGSM(threat=threat, steps=7, step_size=0.02, decay=decay)(model, x, y)
    torch.testing.assert_close(result.x_adv, x_adv, rtol=0, atol=1e-12)


def plain_apgd(model, x, y, norm, eps, steps, start, rho=0.75):
    """One input at a time, one list per quantity: as far from the batched code as it gets. Counts the halvings."""
    points, halvings = [], 0
    for i in range(len(x)):
        x0, label, current = x[i : i + 1], y[i : i + 1], start[i : i + 1]
        loss, grad, wrong = (v for v in gradient(model, current, label))
        losses, last_wrong = [float(loss)], current if bool(wrong) else None
        best, best_loss, best_grad = current, float(loss), grad
        previous, eta, reduced, best_then, begin = current, 2 * eps, True, float(loss), 0
        for k in range(1, steps + 1):
            z = ball(current + eta * ascent(grad, norm), x0, norm, eps)
            if k == 1:
                following = z
            else:
                following = ball(current + 0.75 * (z - current) + 0.25 * (current - previous), x0, norm, eps)
            previous, current = current, following
            loss, grad, wrong = gradient(model, current, label)
            losses.append(float(loss))
            last_wrong = current if bool(wrong) else last_wrong
            if losses[-1] > best_loss:
                best, best_loss, best_grad = current, losses[-1], grad
            if k in checkpoints(steps):
                window = losses[begin : k + 1]
                rises = sum(b > a for a, b in pairwise(window))
                too_few = rises <= rho * (k - begin)
                stuck = not reduced and best_loss <= best_then
                reduced, best_then, begin = too_few or stuck, best_loss, k
                if reduced:
                    eta, current, grad, halvings = eta / 2, best, best_grad, halvings + 1
        points.append(best if last_wrong is None else last_wrong)
    return torch.cat(points), halvings


@pytest.fixture(scope="module")
def rugged(nets):
    """A network so curved that no search comes to rest, and every detail of the path shows in where it ends."""
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(10, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        model[0].weight *= 6
        model[2].weight *= 3
        model[5].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("linf", 0.1), ("l2", 1.0), ("l2", 0.3)])
@pytest.mark.parametrize("steps", [1, 5, 14, 40])
@pytest.mark.parametrize("targets_met", [True, False])
def test_apgd(rugged, norm, eps, steps, targets_met):
    model, x, y = rugged
    attack = APGD(threat=Threat(norm=norm, eps=eps, box=(0.0, 1.0) if norm == "linf" else None), steps=steps)
    if not targets_met:  # a class that always wins: nothing is beaten, and the point of the highest loss comes back
        model = nn.Sequential(model, Handicap())
        y = torch.zeros_like(y)
    if norm == "linf":
        noise = 2 * draws(10, seed=2).uniform((1, 6, 6), torch.float64) - 1
        size = noise.flatten(1).abs().amax(1)
    else:
        noise = draws(10, seed=2).normal((1, 6, 6), torch.float64)
        size = noise.flatten(1).norm(dim=1)
    start = ball(x + eps * noise / size.view(-1, 1, 1, 1), x, norm, eps)
    expected, halvings = plain_apgd(model, x, y, norm, eps, steps, start)
    assert halvings > 10 or steps < 40  # the part under test takes place
    result = attack(model, x, y, seed=2)
    # In l2 the threat keeps 1e-12 of eps in reserve, which many steps on a curved loss blow up.
    torch.testing.assert_close(result.x_adv, expected, rtol=0, atol=1e-9 if norm == "linf" else 1e-5)
    assert targets_met or not result.success.any()


class Handicap(nn.Module):
    """Adds to the first logit what no perturbation makes up for."""

    def forward(self, z):
        return z + torch.tensor([9.0, 0.0, 0.0, 0.0], dtype=z.dtype)


def test_apgd_returns_a_point_that_won_though_a_later_one_had_the_higher_loss(case):
    """Every input that any iterate beats comes back beaten, as in a search that stops at the first success."""
    model, x, y = case
    attack = APGD(threat=Threat(eps=0.02), steps=12, restarts=2)
    full, first = (attack(model, x, y, search=search).success for search in ("full", "first"))
    assert torch.equal(full, first)
    assert 1 < int(full.sum()) < 10


def test_apgd_is_at_least_as_strong_as_pgd_of_as_many_steps(case):
    model, x, y = case
    threat = Threat(eps=0.02)
    apgd = APGD(threat=threat, steps=40)(model, x, y)
    pgd = PGD(threat=threat, steps=40)(model, x, y)
    assert apgd.success.sum() >= pgd.success.sum()
    assert apgd.loss[~apgd.success].mean() >= 0.999 * pgd.loss[~apgd.success].mean()


@pytest.mark.parametrize("loss", ["dlr", "margin", lambda logits, y: F.cross_entropy(logits, y, reduction="none")])
def test_apgd_takes_any_loss(case, loss):
    model, x, y = case
    result = APGD(threat=Threat(eps=0.1), steps=10, loss=loss)(model, x, y)
    assert result.success.all()
