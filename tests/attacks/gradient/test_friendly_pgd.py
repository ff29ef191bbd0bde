"""Friendly PGD on a linear model, where the step that flips each input is known."""

import pytest
import torch

from buttress.attacks.gradient.friendly_pgd import FriendlyPGD
from buttress.attacks.gradient.pgd import PGD
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.threat.row_threat import RowThreat

STEP = 1 / 64
FLIPS = torch.tensor([0, 1, 2, 3, 5, 9])  # steps after which each input is misclassified


@pytest.fixture
def model(nets):
    """Logits (sum(x), 18): each step takes 36 / 64 off the first one, so margins are known numbers of steps."""
    weight = torch.stack([torch.ones(36, dtype=torch.float64), torch.zeros(36, dtype=torch.float64)])
    return nets.linear(weight, torch.tensor([0.0, 18.0], dtype=torch.float64))


@pytest.fixture
def x():
    return (0.5 + (FLIPS - 0.5).double() * STEP)[:, None, None, None].expand(-1, 1, 6, 6).clone()


def attack(**options):
    return FriendlyPGD(**{"threat": Threat(eps=0.25), "steps": 6, "step_size": STEP, "start": "zero", **options})


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("tau", [0, 1, 2, 50])
def test_each_input_goes_tau_steps_past_its_flip(tau, spare, model, x):
    y = torch.zeros(6, dtype=torch.long)
    result = attack(tau=tau, spare=spare)(model, x, y)
    taken = (FLIPS + tau).clamp(max=6)
    torch.testing.assert_close(result.x_adv, x - STEP * taken[:, None, None, None], rtol=0, atol=1e-12)
    assert torch.equal(result.success, FLIPS <= 6)
    if not spare:
        assert torch.equal(result.backwards, torch.full((6,), 6))
    else:  # the question that shows the success is asked, too
        assert torch.equal(result.backwards, (FLIPS + tau + 1).clamp(max=6))


def test_the_budget_holds(model, x):
    x_adv = attack(threat=Threat(eps=2.5 * STEP), tau=50)(model, x, torch.zeros(6, dtype=torch.long)).x_adv
    torch.testing.assert_close((x - x_adv).amax((1, 2, 3)), torch.full((6,), 2.5 * STEP).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spare", [False, True])
def test_rows_have_budgets_of_their_own(spare, model, x):
    scale = torch.tensor([1.0, 1.0, 0.4, 0.4, 1.0, 0.0])
    threat = RowThreat(eps=0.25, scale=scale)
    x_adv = attack(threat=threat, tau=0, spare=spare).craft(model, x, torch.zeros(6, dtype=torch.long))
    taken = torch.tensor([0, 1, 4, 6, 5, 6])  # margins of 1.5 and 2.5 whole steps take 4 and 7 of theirs
    torch.testing.assert_close(x - x_adv, (STEP * scale * taken)[:, None, None, None].double().expand_as(x))


def test_a_target_is_what_counts_as_success(model, x):
    y, target = torch.ones(6, dtype=torch.long), torch.ones(6, dtype=torch.long)
    assert torch.equal(attack(tau=0).craft(model, x, 0 * y, target=target), attack(tau=0).craft(model, x, 0 * y))


@pytest.mark.parametrize("start", ["zero", "uniform", "normal"])
def test_with_tau_as_large_as_the_steps_it_is_pgd(start, nets):
    model, generator = nets.conv(), torch.Generator().manual_seed(1)
    x, y = torch.rand(6, 1, 6, 6, generator=generator), torch.arange(6) % 4
    options = {"threat": Threat(eps=0.1), "steps": 4, "start": start}
    friendly = FriendlyPGD(tau=4, **options).craft(model, x, y, seed=3)
    assert torch.equal(friendly, PGD(**options).craft(model, x, y, seed=3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_has_stopped_is_left_out_without_another_result(norm, nets):
    model, generator = nets.conv(dtype=torch.float64), torch.Generator().manual_seed(1)
    x = torch.rand(12, 1, 6, 6, generator=generator, dtype=torch.float64)
    y = model(x).argmax(1)
    points = []
    for spare in (False, True):
        one = FriendlyPGD(threat=Threat(norm=norm, eps=0.6), steps=8, tau=1, spare=spare)
        points.append(one(model, x, y, seed=3))
    torch.testing.assert_close(points[0].x_adv, points[1].x_adv, rtol=0, atol=1e-12)
    assert points[0].success.any()
    assert points[1].backwards.sum() < points[0].backwards.sum()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tau": -1}, "tau must be a whole number of 0 or more; got -1"),
        ({"tau": 1.5}, "tau must be a whole number of 0 or more"),
        ({"steps": 0}, "steps must be a whole number of 1 or more"),
        ({"start": "far"}, "start must be one of zero, uniform, normal; got 'far'"),
        ({"loss": "no"}, "there is no loss 'no'"),
    ],
)
def test_settings_that_mean_nothing(options, line):
    with pytest.raises(UserError, match=line):
        FriendlyPGD(**options)
