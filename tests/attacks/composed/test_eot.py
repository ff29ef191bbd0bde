"""EoT: a random linear model's optimum in closed form, transformations by hand, and what is counted."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from buttress.attacks import BIM, FGSM, PGD, Attack, EoT
from buttress.attacks.composed.eot import WrapperAttack, _Transformed
from buttress.engine.runner import Runner
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.tasks import classification
from buttress.threat import Threat

THREAT = Threat(norm="l2", eps=0.5, box=None)


class Restless(nn.Module):
    """A linear model whose weights are drawn anew for every pass, around fixed ones."""

    def __init__(self, weight, spread):
        super().__init__()
        self.register_buffer("weight", weight)
        self.spread = spread

    def forward(self, x):
        return x @ (self.weight + self.spread * torch.randn_like(self.weight)).T


@pytest.fixture
def restless():
    weight = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.rand(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Restless(weight, spread=3.0), x, (x @ weight.T).argmax(1)


def test_a_random_linear_model_is_moved_against_its_mean(restless):
    """The best step against the mean margin is along the difference of the mean weights."""
    model, x, y = restless
    best = 0.5 * nn.functional.normalize((model.weight[1] - model.weight[0]) * torch.where(y == 0, 1.0, -1.0)[:, None])

    def agreement(draws):
        attack = EoT(attack=FGSM(threat=THREAT, loss="margin"), draws=draws)
        delta = attack(model, x, y, seed=4).x_adv - x
        return (nn.functional.normalize(delta) * nn.functional.normalize(best)).sum(1).mean()

    assert agreement(1500) > 0.98
    assert agreement(1) < 0.9


def test_answers_are_means_over_draws(restless):
    """One question, its draws made again by hand from the same random state."""
    model, x, y = restless
    seen = []

    class Spy(PGD):
        def perturb(self, oracle, x, y, random):
            seen.append((torch.random.get_rng_state(), oracle.loss_and_grad(x, "margin")))
            return x

    EoT(attack=Spy(threat=THREAT), draws=7)(model, x, y)
    (state, (value, grad)) = seen[0]
    with torch.random.fork_rng([]):
        torch.random.set_rng_state(state)
        weights = torch.stack([model.weight + 3 * torch.randn_like(model.weight) for _ in range(7)]).mean(0)
    sign = torch.where(y == 0, 1.0, -1.0)[:, None].double()
    torch.testing.assert_close(grad, (weights[1] - weights[0]) * sign)
    torch.testing.assert_close(value, (x * (weights[1] - weights[0]) * sign).sum(1))


@pytest.mark.parametrize("search", ["full", "first"])
def test_passes_are_counted_by_the_draw_and_the_verdict_is_a_mean(restless, search):
    model, x, y = restless
    model.spread = 1e-6
    attack = EoT(attack=PGD(threat=Threat(norm="l2", eps=1e-9, box=None), steps=4), draws=6)
    result = attack(model, x, y, search=search)
    assert not result.success.any()
    assert (result.forwards == 6 * (5 if search == "full" else 6)).all()  # the first search looks at the input, too
    assert (result.backwards == 6 * 4).all()


def halves(x, random):
    """Each input scaled by a half or three halves."""
    return x * (0.5 + random.integers(2)).to(x.dtype).view(-1, *[1] * (x.dim() - 1))


class Curved(nn.Module):
    def forward(self, x):
        return torch.stack([x.square().sum(1), x.pow(3).sum(1)], 1)


def test_gradients_are_led_back_through_the_transformations():
    """By hand: the mean over draws of s * gradient at s * x, with the scales drawn as the attack draws them."""
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = torch.zeros(5, dtype=torch.int64)
    seen = []

    class Spy(PGD):
        def perturb(self, oracle, x, y, random):
            seen.append(oracle.loss_and_grad(x, "margin"))
            seen.append(oracle.logits(x))
            for k in (1, 0):
                seen.append(oracle.nearest_face(x, torch.full((5, 1), k), lambda rows, value, grad: value.abs()))
            return x

    draws = 200
    result = EoT(attack=Spy(threat=THREAT), draws=draws, transforms=halves)(Curved(), x, y, seed=3)
    assert torch.equal(result.x_adv, x)
    value, grad = seen[0]
    random = Random(derive(3, "attack"), torch.arange(5)).fork("transforms")
    scales = [0.5 + random.fork("question", 1, k).integers(2)[:, None].double() for k in range(draws)]
    torch.testing.assert_close(value, sum(((s * x).pow(3) - (s * x).square()).sum(1) for s in scales) / draws)
    torch.testing.assert_close(grad, sum(s * (3 * (s * x).square() - 2 * s * x) for s in scales) / draws)
    # In expectation, by the moments of the scale: (1/4 + 9/4) / 2 and (1/8 + 27/8) / 2.
    torch.testing.assert_close(grad, 1.75 * 3 * x.square() - 1.25 * 2 * x, rtol=0, atol=0.4)
    assert not torch.equal(value, (seen[1][:, 1] - seen[1][:, 0]))  # another question, other draws
    value, grad = seen[2]
    assert value.shape == (5,)
    torch.testing.assert_close(grad, 1.75 * 3 * x.square() - 1.25 * 2 * x, rtol=0, atol=0.4)
    assert all((answer == 0).all() for answer in seen[3])
    assert (result.backwards == draws * 3).all()
    assert (result.forwards == draws * 5).all()  # four questions, and the verdict


def test_the_point_beats_the_model_under_transformations_though_the_plain_attacks_does_not():
    """A point that a step in the wrong sign of a shift would lose: only the mean over shifts is flat there."""

    def shifts(x, random):
        return x + 0.3 * random.sign((1,), x.dtype)

    class Bumps(nn.Module):  # the other class wins around 0.5 +- 0.3 only if both bumps are met
        def forward(self, x):
            bump = torch.exp(-((x - 0.8) / 0.1).square()) + torch.exp(-((x - 0.2) / 0.1).square())
            slope = 0.8 * torch.exp(-((x - 0.62) / 0.1).square())
            return torch.cat([torch.full_like(x, 0.5), bump + slope], 1)

    x, y = torch.full((4, 1), 0.56), torch.zeros(4, dtype=torch.int64)
    threat = Threat(eps=0.08)
    options = {"threat": threat, "steps": 30, "step_size": 0.01, "loss": "margin"}
    plain = BIM(**options)(Bumps(), x, y).x_adv
    shifted = EoT(attack=BIM(**options), draws=16, transforms=shifts)(Bumps(), x, y).x_adv
    assert (plain > 0.6).all()
    assert (shifted - 0.5).abs().amax() < 0.025
    for shift in (-0.3, 0.3):
        assert (Bumps()(shifted + shift).argmax(1) == 1).all()
        assert (Bumps()(plain + shift).argmax(1) == 0).all()


def test_transformed_points_are_no_success_and_draws_follow_the_input(nets):
    """Far outside of the threat the model is beaten by every transformed point; at the point itself never."""
    model = nets.linear(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([1.0, 0.0]))
    x, y = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) * 0.4, torch.zeros(6, dtype=torch.int64)

    def far(x, random):
        return x + 5 + random.uniform(x.shape[1:], x.dtype)

    attack = EoT(attack=PGD(threat=Threat(eps=0.02), steps=3), draws=4, transforms=far)
    ids = torch.tensor([5, 9, 2, 77, 1, 30])
    for search in ("full", "first"):
        whole = attack(model, x, y, ids=ids, search=search)
        assert not whole.success.any()
        part = attack(model, x[3:], y[3:], ids=ids[3:], search=search)
        assert torch.equal(part.x_adv, whole.x_adv[3:])


def test_rows_at_rest_read_0_and_keep_their_last_word(nets):
    x, y = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]]), torch.zeros(3, dtype=torch.long)
    model = nets.linear([[1.0, 0.0], [0.0, 1.0]])
    oracle = _Transformed(Runner(model, classification, "fp32", 3), x, y)
    oracle.see(lambda x, random: x + 0.01 * random.sign(x.shape[1:]), 3, Random(0, torch.arange(3)))
    rows, classes = torch.tensor([True, True, False]), torch.ones(3, 1, dtype=torch.long)
    oracle.logits(x)
    assert oracle.success.tolist() == [False, True, False]
    oracle.rest(rows)
    for ask in (
        lambda x: (oracle.logits(x),),
        lambda x: oracle.nearest_face(x, classes, lambda rows, value, grad: value.abs()),
        lambda x: oracle.loss_and_grad(x),
        lambda x: oracle.gradients(x, ["margin", "cross_entropy"]),
    ):
        assert all((answer[rows] == 0).all() for answer in ask(1 - x))
        assert oracle.success.tolist() == [False, True, True]
    assert oracle.forwards.tolist() == [3, 3, 3 * 5]


@pytest.mark.parametrize(
    ("transforms", "told"),
    [
        (lambda x, random: x[:, :1], "must return inputs like its own"),
        (lambda x, random: x.detach(), "transforms must be differentiable"),
        (lambda x, random: None, "must return inputs like its own, torch.float32 .*; got NoneType"),
    ],
)
def test_transformations_that_are_none_are_refused(nets, transforms, told):
    model = nets.linear(torch.eye(2))
    with pytest.raises(UserError, match=told):
        EoT(attack=PGD(), draws=2, transforms=transforms)(model, torch.rand(3, 2), torch.zeros(3, dtype=torch.int64))


def test_settings_that_mean_nothing_are_refused():
    for draws in (0, 2.5, True):
        with pytest.raises(UserError, match="draws must be a whole number of 1 or more"):
            EoT(draws=draws)
    with pytest.raises(UserError, match="transforms must be a function"):
        EoT(transforms="rotate")
    with pytest.raises(UserError, match="attack must be an attack"):
        EoT(attack=nn.Identity())


def test_one_draw_is_the_attack_inside(nets):
    model = nets.conv(seed=3)
    x, y = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 4
    attack = PGD(threat=Threat(eps=0.1))
    ours, theirs = EoT(attack=attack, draws=1)(model, x, y), attack(model, x, y)
    assert torch.equal(ours.x_adv, theirs.x_adv)
    assert torch.equal(ours.forwards, theirs.forwards)
    same = EoT(attack=attack, draws=1, transforms=lambda x, random: x * 1.0)(model, x, y)
    assert torch.equal(same.x_adv, theirs.x_adv)
    assert math.isclose(float(same.loss.sum()), float(theirs.loss.sum()))


def test_a_wrapper_that_forgot_its_base_is_refused_rather_than_run_without_a_budget(nets):
    @dataclass(frozen=True, kw_only=True)
    class Forgetful(WrapperAttack):
        attack: Attack

        def __post_init__(self):
            pass

        def perturb(self, oracle, x, y, random):
            return x + 0.5

    model, x, y = nets.seeded(lambda: torch.nn.Linear(4, 3)), torch.rand(2, 4), torch.tensor([0, 1])
    with pytest.raises(UserError, match=r"Forgetful has no threat: .* __post_init__"):
        Forgetful(attack=PGD())(model, x, y)
    with pytest.raises(UserError, match="Forgetful has no threat"):
        Forgetful(attack=PGD()).craft(model, x, y)
