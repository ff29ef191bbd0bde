"""What holds for every registered attack and noise in any box, in any unit, and where some features may not change."""

import dataclasses
import math
import re

import pytest
import torch
from tests.attacks.members import UNDEFINED, made
from torch import nn

from buttress import registry
from buttress.attacks import Attack
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm
from buttress.errors import UserError
from buttress.threat import Threat

NAMES = registry.attack.names()
ATTACKS = [name for name in NAMES if issubclass(registry.attack.get(name), Attack)]
NORMS = ["linf", "l2", "l1"]
IMAGE = (1, 6, 6)
EFFORT = {"steps": 10, "queries": 60, "search_steps": 3, "samples": 4, "c": 30.0, "lr": 0.1}
EFFORT |= {"std": 0.5, "amount": 0.6, "eps": 0.5}  # of noises


class Scaled(nn.Module):
    """A network for inputs that are so many times larger."""

    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.model(x / self.factor)


def problem(nets, features=36, seed=0, shape=IMAGE):
    """A smooth network in float64, inputs around the middle of [0, 1], and what it says of them."""

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(features, 12), nn.Tanh(), nn.Linear(12, 4))

    model = nets.seeded(build, seed).double()
    with torch.no_grad():
        model[1].weight.mul_(3)
    x = torch.rand(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[0, ..., :2] = torch.tensor([0.0, 1.0], dtype=torch.float64)  # at the edges of the box
    return model, x, model(x).argmax(1)


def in_norms(name, eps, **fields):
    """The threats that a member is defined in: a minimum-norm one without a limit."""
    member = registry.attack.get(name)
    for norm in NORMS:
        size = {"linf": 1.0, "l2": 4.0, "l1": 12.0}[norm]
        limit = math.inf if issubclass(member, MinimumNorm) else eps * size
        yield Threat(norm=norm, eps=limit, **fields)


@pytest.mark.representatives(factor=[256.0])
@pytest.mark.parametrize("factor", [256.0, 255.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_problem_in_another_unit_has_the_same_answer(nets, name, factor):
    """Inputs, box and eps so many times larger: every length that has a default is a share of the box's width.

    By a power of two all numbers keep their digits, by 255 they do up to rounding.
    """
    model, x, y = problem(nets)
    other = problem(nets, seed=1)[0]
    for threat in in_norms(name, 0.1):
        large = dataclasses.replace(threat, eps=factor * threat.eps, box=(0.0, factor))
        one = made(name, threat, other, **EFFORT)
        if one is None:
            continue
        two = made(name, large, Scaled(other, factor), **EFFORT)
        small, big = one(model, x, y, seed=3), two(Scaled(model, factor), factor * x, y, seed=3)
        if factor == 256:
            torch.testing.assert_close(big.x_adv / factor, small.x_adv, rtol=0, atol=1e-6)
            assert torch.equal(big.success, small.success)
        else:
            assert (big.success == small.success).double().mean() >= 5 / 6
        assert torch.equal(big.forwards, small.forwards) or factor == 255


MASK = torch.rand(IMAGE, generator=torch.Generator().manual_seed(4)) < 0.6


@pytest.mark.parametrize("name", ATTACKS)
def test_what_may_not_change_keeps_its_bits_and_the_attack_still_finds_something(nets, name):
    model, x, y = problem(nets)
    found = []
    for threat in in_norms(name, 0.4, mask=MASK):
        for eps in {threat.eps, 0.4 if math.isinf(threat.eps) else threat.eps}:
            attack = made(name, dataclasses.replace(threat, eps=eps), model, **EFFORT)
            if attack is not None:
                result = attack(model, x, y)
                assert torch.equal(result.x_adv[:, ~MASK], x[:, ~MASK])
                assert attack.threat.contains(result.x_adv, x).all()
                found.append(bool((result.success & (model(x).argmax(1) == y)).any()))
    assert any(found)


EPS = (0.05 + 0.5 * torch.rand(IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(5))) * MASK


@pytest.mark.parametrize("name", ATTACKS)
def test_no_feature_leaves_its_own_eps(nets, name):
    model, x, y = problem(nets)
    attack = made(name, Threat(eps=EPS), model, **EFFORT)
    if attack is None:  # not defined in linf
        return
    result = attack(model, x, y)
    if name != "n-fgsm":
        assert ((result.x_adv - x).abs() <= EPS).all()
        assert (result.distance <= EPS.max()).all()
    assert result.success.any() or name == "one-pixel"


def test_an_eps_by_feature_is_refused_by_name_in_l2_and_l1():
    for norm in ("l2", "l1"):
        with pytest.raises(UserError, match=f"an eps by feature is defined in linf; got {norm}"):
            Threat(norm=norm, eps=EPS)


LOW = torch.where(torch.arange(36).view(IMAGE) % 3 == 0, -math.inf, -0.5)
HIGH = torch.where(torch.arange(36).view(IMAGE) % 4 == 0, math.inf, 1.5)
OPEN = {"from below": (0.0, math.inf), "from above": (-math.inf, 1.0), "mixed": (LOW, HIGH)}


def result_or_refusal(name, threat, model, x, y):
    """None where the member says that it is not defined there."""
    try:
        attack = made(name, threat, model, **EFFORT)
        return None if attack is None else attack(model, x, y)
    except UserError as refusal:
        if not re.search(f"image|finite|{UNDEFINED.pattern}", str(refusal)):
            raise
        return None


@pytest.mark.representatives(box=["mixed"])
@pytest.mark.parametrize("box", OPEN)
@pytest.mark.parametrize("name", NAMES)
def test_in_a_box_with_an_infinite_end_points_are_finite_and_a_search_without_a_limit_finds_them(nets, name, box):
    model, x, y = problem(nets)
    for threat in in_norms(name, 0.4, box=OPEN[box]):
        for eps in (0.4, math.inf):
            one = dataclasses.replace(threat, eps=eps)
            result = result_or_refusal(name, one, model, x, y)
            if result is None:
                continue
            assert result.x_adv.isfinite().all()
            assert dataclasses.replace(one, eps=math.inf).contains(result.x_adv, x).all()
            if issubclass(registry.attack.get(name), MinimumNorm) and math.isinf(eps):
                assert result.success.any(), (name, one.norm)


def test_a_box_of_one_range_by_feature_is_that_box(nets):
    """For every attack, up to rounding: the same mechanism."""
    model, x, y = problem(nets)
    ends = (torch.zeros(IMAGE), torch.ones(IMAGE))
    for name in ATTACKS:
        for threat in in_norms(name, 0.1):
            attack = made(name, threat, model)
            if attack is not None:
                by_feature = made(name, dataclasses.replace(threat, box=ends), model)
                torch.testing.assert_close(
                    by_feature(model, x, y).x_adv, attack(model, x, y).x_adv, rtol=0, atol=1e-9, msg=name
                )
