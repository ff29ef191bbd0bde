"""Carlini and Wagner's attack beside the same mathematics written with autograd and torch's own Adam."""

import math

import pytest
import torch

from buttress.attacks.minimum_norm.cw import CW
from buttress.losses import margin
from buttress.threat import Threat


def plain_run(model, x, y, c, steps, lr, low, high, sign=1.0):
    """One input, one value of c: the smallest distance of a point that beats the model, and every objective."""
    middle, half = (low + high) / 2, (high - low) / 2
    free = torch.atanh((x - middle) / half * (1 - 1e-6)).requires_grad_()
    adam = torch.optim.Adam([free], lr=lr)
    smallest = math.inf
    for _ in range(steps):
        point = middle + half * torch.tanh(free)
        lead = sign * margin(model(point), y)
        distance = (point - x).square().sum()
        if lead > 0:
            smallest = min(smallest, float(distance.detach().sqrt()))
        loss = distance / (high - low) ** 2 + c * (-lead).clamp(min=0).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return smallest


@pytest.mark.representatives(box=[(-0.5, 2.0)])
@pytest.mark.parametrize("box", [(0.0, 1.0), (-0.5, 2.0)])
@pytest.mark.parametrize("targeted", [False, True])
def test_one_value_of_c_is_what_adam_does(nets, box, targeted):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(5, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    target = model(x).topk(2, dim=1).indices[:, 1] if targeted else None
    threat = Threat(norm="l2", eps=math.inf, box=box)
    attack = CW(threat=threat, steps=80, search_steps=1, c=300.0, lr=0.1, abort_early=False)
    result = attack(model, x, y, target=target)
    assert result.success.any()
    for row in range(5):
        goal, sign = (target, -1.0) if targeted else (y, 1.0)
        mine = float(result.distance[row]) if result.success[row] else math.inf
        theirs = plain_run(model, x[row : row + 1], goal[row : row + 1], 300.0, 80, 0.1, *box, sign=sign)
        assert mine == pytest.approx(theirs, rel=1e-6)


def test_c_is_searched_from_failure_to_success_and_back(nets):
    """With one step a run never succeeds, so that c grows tenfold; the passes are those of all runs."""
    model = nets.linear(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.tensor([4.0, -4.0]))
    x, y = torch.full((2, 2), 0.5), torch.zeros(2, dtype=torch.long)
    result = CW(steps=1, search_steps=7)(model, x, y)
    assert not result.success.any()
    assert (result.forwards == 1 + 7 + 1).all()  # the clean pass and the verdict besides
    assert (result.backwards == 7).all()


def test_confidence_is_a_margin_that_the_point_has(nets):
    model = nets.conv(seed=3)
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    threat = Threat(norm="l2", eps=math.inf)
    plain, sure = (
        CW(threat=threat, steps=60, search_steps=3, c=10.0, lr=0.1, confidence=kappa)(model, x, y)
        for kappa in (0.0, 0.05)
    )
    assert plain.success.all()
    assert sure.success.all()
    assert (margin(model(sure.x_adv), y) >= 0.05 - 1e-5).all()
    assert (sure.distance > plain.distance).all()


def test_ending_early_saves_passes_and_costs_little(nets):
    model = nets.conv(seed=3)
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    early, late = (
        CW(steps=150, search_steps=2, c=1.0, lr=0.1, abort_early=flag)(model, x, y) for flag in (True, False)
    )
    assert (late.backwards == 300).all()
    assert (early.backwards < late.backwards).all()
    torch.testing.assert_close(early.distance, late.distance, rtol=0.02, atol=0)
