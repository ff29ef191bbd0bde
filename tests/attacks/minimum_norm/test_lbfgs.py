"""The batched L-BFGS beside scipy's, on the same objective."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from buttress.attacks.minimum_norm.lbfgs import LBFGS, _Descent
from buttress.attacks.minimum_norm.smallest_perturbation import Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.runner import Runner
from buttress.tasks import classification
from buttress.threat import Threat


def escape(logits, y):
    """Minus the log-probability of not being ``y``."""
    return -torch.log1p(-logits.softmax(1).gather(1, y[:, None]).squeeze(1))


def descended(model, x, y, target, c, evaluations, box):
    """The objective that each input's descent ends at, read off its last accepted point."""
    oracle = Oracle(Runner(model, classification, "fp32", len(x)), x, y, target)
    threat = Threat(norm="l2", eps=math.inf if box else 1e6, box=box)
    descent = _Descent(oracle, threat, torch.full((len(x),), c, dtype=torch.float64), Smallest(oracle, threat))
    lowest = torch.full((len(x),), math.inf, dtype=torch.float64)
    ask = descent._ask

    def watched(point):
        nonlocal lowest
        answer = ask(point)
        if box:
            assert (point >= box[0]).all()
            assert (point <= box[1]).all()
        lowest = torch.minimum(lowest, answer[0])
        return answer

    descent._ask = watched
    descent.run(evaluations)
    return lowest


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("box", [(0.0, 1.0), None])
def test_its_minimum_is_scipys(nets, box, targeted):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(5, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.where(x > 0.8, 1.0, x)  # some at the edge
    y = model(x).argmax(1)
    target = (y + 1) % 4 if targeted else None
    lowest = descended(model, x, y, target, 0.2, 60, box)
    for row in range(5):
        start, truth = x[row : row + 1], y[row : row + 1]

        def objective(flat, start=start, truth=truth, row=row):
            point = torch.from_numpy(np.array(flat)).view_as(start).requires_grad_()
            logits = model(point)
            loss = F.cross_entropy(logits, target[row : row + 1]) if targeted else escape(logits, truth).sum()
            value = 0.2 * (point - start).square().sum() + loss
            (grad,) = torch.autograd.grad(value, point)
            return float(value.detach()), grad.numpy().ravel()

        theirs = minimize(objective, start.numpy().ravel(), jac=True, method="L-BFGS-B", bounds=box and [box] * 36)
        assert float(lowest[row]) <= float(theirs.fun) * 1.01 + 1e-6


def test_more_weight_on_the_distance_ends_nearer_until_nothing_is_beaten(nets):
    model = nets.conv(seed=3)
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    oracle = Oracle(Runner(model, classification, "fp32", len(x)), x, y)
    threat = Threat(norm="l2", eps=math.inf)
    won = []
    for c in (1e-3, 1e3):
        best = Smallest(oracle, threat)
        won.append(_Descent(oracle, threat, torch.full((5,), c, dtype=torch.float64), best).run(40))
    assert won[0].all()
    assert not won[1].any()


def test_a_certain_model_is_beaten_although_its_softmax_has_no_slope_left(nets):
    weight = 300 * torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, -0.5]])
    x = torch.tensor([[0.9, 0.1, 0.8], [0.8, 0.3, 0.6]])
    y = torch.zeros(2, dtype=torch.long)
    result = LBFGS(steps=60, search_steps=14)(nets.linear(weight), x, y)
    exact = (x @ (weight[0] - weight[1])) / (weight[0] - weight[1]).norm()
    assert result.success.all()
    assert (result.distance <= 1.1 * exact).all()
