"""SPSA: its estimate against the formula, its steps against Adam's, its result against closed forms."""

import math

import pytest
import torch

from buttress import tasks
from buttress.attacks.black_box.spsa import SPSA
from buttress.engine.oracle import Oracle
from buttress.engine.runner import Runner
from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat

WEIGHT = torch.tensor([0.9, -2.0, 0.3, 1.1, -0.2, 0.05, -1.3, 0.7, 0.4, -0.6], dtype=torch.float64)
IDS = torch.tensor([4, 19, 2])


def half_space(nets, weight=WEIGHT):
    """Two classes whose margin, for the truth 0, is ``weight`` times the input."""
    return nets.linear(torch.stack([-weight / 2, weight / 2]))


def oracle(model, x, target=None):
    y = torch.zeros(len(x), dtype=torch.long)
    return Oracle(Runner(model, tasks.classification, "fp32", len(x)), x, y, target)


def test_the_estimate_is_the_published_mean(nets):
    x = torch.rand(3, 10, dtype=torch.float64)
    attack = SPSA(threat=Threat(box=None), samples=5)
    found = attack.within().estimate(oracle(half_space(nets), x), x, Random(7, IDS))
    random = Random(7, IDS)
    signs = torch.stack([random.sign((10,), torch.float64) for _ in range(5)], 1)
    expected = ((signs @ WEIGHT)[..., None] * signs).mean(1)  # of a linear loss the difference is exact
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_with_one_feature_the_estimate_is_the_gradient(nets):
    weight = torch.tensor([-3.5], dtype=torch.float64)
    x = torch.full((3, 1), 0.4, dtype=torch.float64)
    found = SPSA(samples=2).within().estimate(oracle(half_space(nets, weight), x), x, Random(7, IDS))
    torch.testing.assert_close(found, weight.expand(3, 1), rtol=0, atol=1e-9)
    target = torch.ones(3, dtype=torch.long)  # with two classes the target's margin is the same
    found = SPSA(samples=2).within().estimate(oracle(half_space(nets, weight), x, target), x, Random(7, IDS))
    torch.testing.assert_close(found, weight.expand(3, 1), rtol=0, atol=1e-9)


def test_the_estimate_comes_to_the_gradient_as_samples_grow(nets):
    x = torch.rand(3, 10, dtype=torch.float64)
    found = SPSA(threat=Threat(box=None), samples=2000).estimate(oracle(half_space(nets), x), x, Random(7, IDS))
    noise = (WEIGHT.square().sum() - WEIGHT.square()).sqrt() / math.sqrt(2000)  # its standard deviation
    assert ((found - WEIGHT).abs() < 4.5 * noise).all()
    assert ((found - WEIGHT).abs() > 0.1 * noise).any()


def test_at_the_edge_of_the_box_a_slope_comes_out_as_half(nets):
    weight = torch.tensor([2.0], dtype=torch.float64)
    for edge in (0.0, 1.0):
        x = torch.full((3, 1), edge, dtype=torch.float64)
        found = SPSA(samples=2).within().estimate(oracle(half_space(nets, weight), x), x, Random(7, IDS))
        torch.testing.assert_close(found, weight.expand(3, 1) / 2, rtol=0, atol=1e-9)


def test_the_steps_are_adams(nets):
    """Against torch's Adam on the same estimates of a model that is not linear."""
    model, generator = nets.conv(dtype=torch.float64), torch.Generator().manual_seed(1)
    x = 0.3 + 0.4 * torch.rand(3, 1, 6, 6, dtype=torch.float64, generator=generator)
    y = torch.zeros(3, dtype=torch.long)
    attack = SPSA(threat=Threat(eps=10.0, box=None), steps=4, samples=3, lr=0.02)
    seen = []
    hook = model.register_forward_hook(lambda module, args, output: seen.append(args[0].clone()))
    attack(model, x, y, ids=IDS)
    hook.remove()
    iterates = [x, *seen[7::7][:4]]  # after the input itself, each step asks 6 times and then about where it went
    point = x.clone()
    adam = torch.optim.Adam([point], lr=0.02)
    for step in range(4):
        asked = seen[1 + 7 * step : 7 + 7 * step]
        losses = [model(end).detach() for end in asked]
        margins = [(z[:, 1:].amax(1) - z[:, 0])[:, None, None, None] for z in losses]
        estimate = torch.zeros_like(x)
        for k in range(3):
            direction = (asked[2 * k] - iterates[step]).sign()
            torch.testing.assert_close(asked[2 * k + 1], iterates[step] - 0.01 * direction)
            estimate += (margins[2 * k] - margins[2 * k + 1]) / 0.02 * direction / 3
        point.grad = -estimate
        adam.step()
        torch.testing.assert_close(iterates[step + 1], point, rtol=0, atol=1e-9)


@pytest.mark.representatives(targeted=[True])
@pytest.mark.parametrize("targeted", [False, True])
def test_comes_close_to_the_optimum_of_a_linear_model_in_linf(nets, targeted):
    model = half_space(nets)
    x = torch.rand(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = torch.arange(6) % 2
    sign = 1.0 - 2.0 * y.double()[:, None]
    attack = SPSA(threat=Threat(eps=0.1), steps=60, samples=16)
    result = attack(model, x, y, target=1 - y if targeted else None)
    best = (x + 0.1 * sign * WEIGHT.sign()).clamp(0, 1)
    gained, possible = (((point - x) * sign) @ WEIGHT for point in (result.x_adv, best))
    assert (gained <= possible + 1e-9).all()
    assert (gained >= 0.95 * possible).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_never_worse_than_the_start_whatever_the_step(nets, norm):
    model = nets.conv(3)
    x = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    y = torch.arange(8) % 4
    for lr in (0.003, 0.9):
        attack = SPSA(threat=Threat(norm=norm, eps=0.3), steps=4, samples=1, delta=0.2, lr=lr)
        result = attack(model, x, y)
        margins = []
        for point in (x, result.x_adv):
            logits = model(point).detach()
            own = logits.gather(1, y[:, None]).squeeze(1)
            margins.append(logits.scatter(1, y[:, None], -math.inf).amax(1) - own)
        assert (margins[1] >= margins[0] - 1e-6).all()
        assert (result.x_adv != x).any()


def test_asks_exactly_as_often_as_it_says(nets):
    model, seen = half_space(nets), []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    x, y = torch.rand(3, 10, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    result = SPSA(steps=4, samples=3)(model, x, y)
    assert (result.forwards == 1 + 4 * (2 * 3 + 1) + 1).all()  # and the verdict
    assert (result.backwards == 0).all()
    assert sum(seen) == 3 * 30


def test_beats_a_model_without_gradients():
    def steps(x):
        margin = (x.flatten(1).double() @ WEIGHT * 32).floor() / 32
        return torch.stack([-margin, margin], 1).detach()

    x = torch.rand(8, 10, generator=torch.Generator().manual_seed(3))
    y = steps(x).argmax(1)
    result = SPSA(threat=Threat(eps=0.5), steps=60, samples=8, delta=0.05, lr=0.05)(steps, x, y)
    reach = 0.5 * WEIGHT.abs().sum() * 0.7  # what is left of it where the box cuts
    assert result.success[(x.double() @ WEIGHT).abs() < reach / 2].all()
    assert result.success.any()


def test_a_point_outside_the_threat_is_no_success(nets):
    """The questions go further than eps; with a budget of next to nothing none of them may count."""
    model = half_space(nets)
    x = 0.5 + WEIGHT[None] * 0  # w.x is -0.325: the model says 0, and 0.05 around it would do for the other class
    x = x - WEIGHT * (x @ WEIGHT + 0.02)[:, None] / WEIGHT.square().sum()
    attack = SPSA(threat=Threat(eps=1e-6), steps=3, samples=8, delta=0.05)
    result = attack(model, x, torch.zeros(1, dtype=torch.long), search="first")
    assert not result.success.any()
    assert attack.threat.contains(result.x_adv, x).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"samples": 0}, "samples must be a whole number of 1 or more; got 0"),
        ({"steps": True}, "steps must be a whole number of 1 or more; got True"),
        ({"delta": 0.0}, "delta must be a finite number above 0"),
        ({"lr": -1.0}, "lr must be a finite number above 0"),
        ({"loss": "margn"}, "did you mean 'margin'"),
        ({"threat": Threat(eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        SPSA(**wrong)
