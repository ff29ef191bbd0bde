"""The attack along rows of the Jacobian: against the published loop, and what it costs."""

import math

import pytest
import torch

from buttress import models
from buttress.attacks.minimum_norm.sensitivity import Sensitivity
from buttress.errors import UserError
from buttress.models.blocks.snode_problems import direct, input_sensitivity
from buttress.threat import Threat


def loop(logits_and_rows, x, label, target=None, steps=30, step_size=0.03, kappa=0.975, box=(0.0, 1.0)):
    """One input's way as published; the smallest point that changed the class, or None."""
    point, best = x.clone(), None
    for step in range(steps + 1):
        z, rows = logits_and_rows(point)
        answer = int(z.argmax())
        won = answer != label if target is None else answer == target
        if won and (best is None or (point - x).norm() < (best - x).norm()):
            best = point.clone()
        if step == steps:
            return best
        rivals = [i for i in range(len(z)) if i != label] if target is None else [target]
        ways = [kappa * rows[i] - rows[label] for i in rivals]
        estimates = [(z[label] - kappa * z[i]) / v.norm() for i, v in zip(rivals, ways, strict=True)]
        way = ways[int(torch.stack(estimates).argmin())]
        point = (point + step_size * way / way.norm()).clamp(*box)
    raise AssertionError


def by_autograd(model):
    def both(point):
        rows = torch.autograd.functional.jacobian(lambda p: model(p[None])[0], point)
        return model(point[None])[0].detach(), rows

    return both


@pytest.mark.parametrize(("targeted", "steps"), [(False, 30), (True, 90)])
def test_it_is_the_published_loop(nets, targeted, steps):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(8, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    target = model(x).topk(2, dim=1).indices[:, 1] if targeted else None
    result = Sensitivity(steps=steps)(model, x, y, target=target)
    aims = target.tolist() if targeted else [None] * 8
    found = [loop(by_autograd(model), x[k], int(y[k]), aims[k], steps) for k in range(8)]
    assert result.success.tolist() == [point is not None for point in found]
    assert int(result.success.sum()) >= 2
    for k, point in enumerate(found):
        torch.testing.assert_close(result.x_adv[k], x[k] if point is None else point, rtol=0, atol=1e-9)


def test_on_a_standalone_ode_the_rows_are_those_of_its_sensitivity_problem():
    """Steps in pixels are those in the state with the other sign."""
    net = models.create("snode", seed=0, classes=3, image_size=4, time=1.0, resolution=10).double().eval()
    with torch.no_grad():
        net.weight.mul_(6)
    x = torch.rand(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = net(x).argmax(1)

    def rows(state):
        path = direct(net, state[None])
        return path.end[0, :3], input_sensitivity(net, path)[0, :3]

    result = Sensitivity(steps=20)(net, x, y)
    for k, state in enumerate(net.encode(x)):
        point = loop(rows, state, int(y[k]), steps=20, box=(-1.0, 0.0))
        assert bool(result.success[k]) == (point is not None)
        wanted = x[k].flatten() if point is None else -point
        torch.testing.assert_close(result.x_adv[k].flatten(), wanted, rtol=0, atol=1e-9)
    assert result.success.any()


def test_on_a_linear_model_the_distance_is_that_to_the_plane_up_to_a_step(nets):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    x = torch.rand(20, 5, dtype=torch.float64, generator=generator)
    model = nets.linear(weight)
    logits = x @ weight.T
    y = logits.argmax(1)
    attack = Sensitivity(steps=400, step_size=0.01, kappa=1.0, threat=Threat(norm="l2", eps=100.0, box=None))
    faces = [
        [float((logits[k, y[k]] - logits[k, i]) / (weight[y[k]] - weight[i]).norm()) for i in range(3) if i != y[k]]
        for k in range(20)
    ]
    nearest = torch.tensor([min(row) for row in faces], dtype=torch.float64)
    result = attack(model, x, y)
    assert result.success.all()
    assert (result.distance >= nearest - 1e-12).all()
    assert (result.distance <= nearest + 0.01 + 1e-9).all()


def test_its_cost(nets):
    model = nets.conv(seed=3)
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4  # wrong as it is
    result = Sensitivity(steps=5)(model, x, y)
    # The verdict is one more forward.
    assert result.forwards.tolist() == [2] + [1 + 5 + 1 + 1] * 5
    assert result.backwards.tolist() == [0] + [5 * 3] * 5
    assert result.distance[0] == 0
    few = Sensitivity(steps=5, candidates=1)(model, x, y)
    assert few.backwards.tolist() == [0] + [5] * 5
    aimed = Sensitivity(steps=5)(model, x, y, target="least_likely")
    assert aimed.backwards[1:].tolist() == [5] * 5


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"threat": Threat(norm="linf", eps=0.1)}, "l2"),
        ({"steps": 0}, "steps"),
        ({"step_size": 0.0}, "step_size must be a finite number above 0; got 0.0"),
        ({"kappa": math.inf}, "kappa must be a finite number above 0; got inf"),
        ({"candidates": 0}, "candidates must be a whole number of 1 or more"),
    ],
)
def test_settings_that_mean_nothing(fields, line):
    with pytest.raises(UserError, match=line):
        Sensitivity(**fields)
