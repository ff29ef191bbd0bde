"""The attack on the smoothed network: its gradient by hand, its optimum on a plane, and what is counted."""

import math

import pytest
import torch
from torch import nn

from buttress.attacks import FGSM, PGD, SmoothAdv
from buttress.attacks.composed.smoothadv import noise_of
from buttress.engine.perturbation import attack_random
from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat

THREAT = Threat(norm="l2", eps=0.5, box=None)


@pytest.fixture
def problem(nets):
    model = nets.conv(seed=3).double().eval()
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, x, torch.tensor([0, 1, 2, 3, 0])


def test_it_climbs_the_loss_of_the_mean_probability(problem):
    """Minus the log of the mean probability of the truth, which is not the mean of the losses."""
    model, x, y = problem
    sigma, samples, ids = 0.7, 6, torch.arange(10, 15)
    attack = SmoothAdv(attack=FGSM(threat=THREAT), sigma=sigma, samples=samples)
    found = attack.craft(model, x, y, seed=3, ids=ids) - x
    start, random = x.clone().requires_grad_(), attack_random(3, ids)
    several = [model(start + noise_of(random, k, sigma, x)).softmax(1) for k in range(samples)]
    truth = torch.stack(several).mean(0).gather(1, y[:, None])
    (grad,) = torch.autograd.grad(-truth.log().sum(), start)
    torch.testing.assert_close(found, 0.5 * nn.functional.normalize(grad.flatten(1)).view_as(x), rtol=1e-6, atol=1e-9)


def test_on_a_plane_it_goes_straight_to_it():
    w = torch.tensor([0.6, -0.8, 0.0])
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([0 * w, w]))
        model.bias.zero_()
    x, y = torch.tensor([[0.3, -0.4, 0.0]]), torch.tensor([1])
    x_adv = SmoothAdv(attack=PGD(threat=THREAT, steps=5, start="zero"), sigma=0.5)(model, x, y).x_adv
    torch.testing.assert_close(x_adv, x - 0.5 * w, rtol=0, atol=1e-5)


def test_noise_is_that_of_the_input_and_stays(problem):
    model, x, y = problem
    ids = torch.tensor([4, 1, 3, 0, 2])
    attack = SmoothAdv(attack=PGD(threat=THREAT, steps=3), sigma=0.5, samples=3)
    whole = attack(model, x, y, seed=1, ids=ids).x_adv
    part = attack(model, x[1:3], y[1:3], seed=1, ids=ids[1:3], batch_size=1).x_adv
    torch.testing.assert_close(part, whole[1:3], rtol=0, atol=1e-9)
    random = Random(0, ids)
    first = noise_of(random, 0, 0.5, x)
    random.normal()
    assert torch.equal(noise_of(random, 0, 0.5, x), first)
    assert not torch.equal(noise_of(random, 1, 0.5, x), first)


def test_every_sample_is_a_pass(problem):
    model, x, y = problem
    attack = SmoothAdv(attack=PGD(threat=THREAT, steps=4), sigma=0.5, samples=3)
    result = attack(model, x, y)
    assert attack.search_passes(4).forwards == 12
    assert result.backwards.tolist() == [12] * 5
    assert int(result.forwards.max()) <= attack.most_passes(4).forwards


def test_the_deviation_is_a_quarter_of_the_box_unless_given(problem):
    model, x, y = problem
    inner = PGD(threat=Threat(norm="l2", eps=0.5, box=(0, 2)), steps=2)
    own = SmoothAdv(attack=inner, samples=2)(model, x, y).x_adv
    assert torch.equal(own, SmoothAdv(attack=inner, sigma=0.5, samples=2)(model, x, y).x_adv)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"sigma": 0}, "sigma must be a finite number above 0; got 0"),
        ({"sigma": math.inf}, "sigma must be a finite number above 0; got inf"),
        ({"samples": 0}, "samples must be a whole number of 1 or more; got 0"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings, line):
    with pytest.raises(UserError, match=line):
        SmoothAdv(**settings)
