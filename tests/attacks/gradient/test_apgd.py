"""APGD beyond its loop: the L1 form and its projection, targets, restarts, and what they cost."""

import dataclasses
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from buttress.attacks import APGD
from buttress.attacks.gradient.l1_geometry import project_l1, sparse_step
from buttress.errors import UserError
from buttress.losses import dlr_toward, ranked
from buttress.threat import Threat


def draw(n, d, seed, box, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    low, high = box or (-2.0, 2.0)
    x = low + (high - low) * torch.rand(n, d, dtype=dtype, generator=generator)
    x = torch.where(torch.rand(n, d, generator=generator) < 0.2, torch.tensor(low, dtype=dtype), x)
    return x, x + torch.randn(n, d, dtype=dtype, generator=generator) * torch.rand(n, 1, dtype=dtype) * 2


def by_bisection(x_adv, x, eps, box):
    """The same projection, its shrinkage found by halving an interval 70 times."""
    delta = x_adv - x
    room = torch.full_like(x, float("inf"))
    if box is not None:
        room = torch.where(delta > 0, box[1] - x, x - box[0])
    low, high = torch.zeros(len(x), 1, dtype=x.dtype), delta.abs().amax(1, keepdim=True)
    for _ in range(70):
        middle = (low + high) / 2
        size = (delta.abs() - middle).clamp(min=0).minimum(room).sum(1, keepdim=True)
        low, high = torch.where(size > eps, middle, low), torch.where(size > eps, high, middle)
    inside = delta.abs().minimum(room).sum(1, keepdim=True) <= eps
    return x + delta.sign() * (delta.abs() - torch.where(inside, 0, high)).clamp(min=0).minimum(room)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    eps=st.sampled_from([0.0, 1e-6, 0.3, 2.0, 9.0]),
    box=st.sampled_from([None, (0.0, 1.0), (-0.2, 0.7)]),
    d=st.sampled_from([1, 2, 7, 40]),
    seed=st.integers(0, 10_000),
)
def test_projection_is_that_of_bisection_and_exactly_inside(eps, box, d, seed):
    x, x_adv = draw(6, d, seed, box)
    threat = Threat(norm="l1", eps=eps, box=box)
    found = project_l1(x_adv, x, threat)
    torch.testing.assert_close(found, by_bisection(x_adv, x, eps, box), rtol=0, atol=1e-10)
    assert threat.contains(found, x).all()
    single = project_l1(x_adv.float(), x.float().clamp(*box) if box else x.float(), threat)
    assert single.dtype == torch.float32
    assert threat.contains(single, x.float().clamp(*box) if box else x.float()).all()


def test_projection_is_nearer_than_any_other_allowed_point():
    x, x_adv = draw(50, 5, 3, (0.0, 1.0))
    threat = Threat(norm="l1", eps=0.7)
    nearest = (project_l1(x_adv, x, threat) - x_adv).norm(dim=1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        other = threat.project(x + torch.randn(50, 5, dtype=torch.float64, generator=generator), x)
        assert (nearest <= (other - x_adv).norm(dim=1) + 1e-12).all()


def test_with_an_infinite_ball_the_box_is_left_to_stop_it():
    x, x_adv = draw(5, 8, 0, (0.0, 1.0))
    found = project_l1(x_adv, x, Threat(norm="l1", eps=float("inf")))
    torch.testing.assert_close(found, x_adv.clamp(0, 1), rtol=0, atol=1e-15)


def test_a_sparse_step_moves_the_largest_entries_alike():
    grad = torch.tensor([[3.0, -5.0, 0.0, 1.0], [0.0, 0.0, 0.0, -2.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    step = sparse_step(grad, torch.tensor([1.9, 3.0, 2.0, 0.2]))
    expected = [[0.5, -0.5, 0, 0], [0, 0, 0, -1], [0, 0, 0, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(step, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("size", [1, 3, 6, 10, 64, 192, 784])
def test_as_many_entries_move_as_released(size):
    """The release keeps what reaches the entry at floor((1 - share) D), D - 1 at most, in ascending order."""
    grad = torch.randn(1, size, generator=torch.Generator().manual_seed(size))
    for moved in range(size + 1):  # the first steps move a fifth, later ones the best point's coordinates over 1.5
        for count in (Fraction(moved) / Fraction(3, 2), Fraction(size, 5)):
            released = size - min(math.floor((1 - count / size) * size), size - 1)
            step = sparse_step(grad, torch.tensor([float(count)]))
            assert int((step != 0).sum()) == released
            assert float(step.abs().sum()) == pytest.approx(1)


@pytest.mark.parametrize(("large_start", "share"), [(False, 0.92), (True, 0.98)])
def test_l1_optimum_of_a_linear_model_within_the_box(nets, large_start, share):
    """The best spends the budget on the largest weights first, each up to the box.

    Steps as sparse as the best point waste some of themselves on coordinates that the box holds; the large start helps.
    """
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(20, dtype=torch.float64, generator=generator)
    x = torch.rand(12, 20, dtype=torch.float64, generator=generator)
    model = nets.linear(torch.stack([torch.zeros_like(weight), weight]))
    y = torch.zeros(12, dtype=torch.long)
    gain = []
    for row in x:
        room = torch.where(weight > 0, 1 - row, row)
        left, total = 1.5, 0.0
        for i in weight.abs().argsort(descending=True):
            move = min(left, float(room[i]))
            left, total = left - move, total + move * float(weight[i].abs())
        gain.append(total)
    attack = APGD(threat=Threat(norm="l1", eps=1.5), steps=100, loss="margin", large_start=large_start)
    moved = ((attack.craft(model, x, y) - x) * weight).sum(1)
    best = torch.tensor(gain, dtype=torch.float64)
    assert (moved <= best + 1e-9).all()
    assert (moved >= share * best).all()
    assert moved.sum() >= 0.985 * best.sum()


def far():
    """A linear model in which only one class can be reached, and an input whose order of classes is known."""
    weight = torch.zeros(5, 6, dtype=torch.float64)
    weight[3, 0] = 2.0
    bias = torch.tensor([3.0, 2.5, 2.4, 1.2, 1.0], dtype=torch.float64)
    return weight, bias


def test_targets_follow_the_order_of_the_clean_logits():
    clean = torch.tensor([[1.0, 5.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0]])
    assert ranked(clean, torch.tensor([1, 0]), 2).tolist() == [[3, 2], [3, 2]]
    assert ranked(clean, torch.tensor([1, 0]), 9).shape == (2, 3)


def test_each_target_is_tried_on_those_that_stand_and_told(nets):
    """The third of the other classes is the only one that can win, so the first two rounds are in vain."""
    weight, bias = far()
    model = nets.linear(weight, bias)
    x = torch.full((4, 6), 0.2, dtype=torch.float64)
    x[3, 0] = 0.41  # here the class can come to 3.02, elsewhere to 2.6, and 3 is wanted
    y = torch.zeros(4, dtype=torch.long)
    for search in ("full", "first"):
        result = APGD(threat=Threat(eps=0.5, box=(0.0, 2.0)), steps=4, targets=9, loss="margin")(
            model, x, y, search=search
        )
        assert result.success.tolist() == [False, False, False, True]
        assert [stage.name for stage in result.stages] == ["target 1", "target 2", "target 3", "target 4"]
        assert [stage.successes for stage in result.stages] == [0, 0, 1, 0]
        assert [stage.entered for stage in result.stages] == [4, 4, 4, 3]
    clean, verdict = 1, 1
    assert result.forwards.tolist()[:3] == [clean + 4 * (4 + 1 + 1) + verdict] * 3
    assert result.backwards.tolist()[:3] == [4 * 4] * 3


def test_an_input_that_is_beaten_takes_no_part_in_further_restarts(nets):
    model = nets.linear(torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    x = torch.tensor([[0.9], [0.3]], dtype=torch.float64)
    attack = APGD(threat=Threat(eps=0.5, box=(-1.0, 1.0)), steps=6, restarts=5)
    result = attack(model, x, torch.tensor([0, 0]))
    assert result.success.tolist() == [False, True]
    assert [stage.entered for stage in result.stages] == [2, 1, 1, 1, 1]
    assert result.backwards.tolist() == [5 * 6, 6]


def test_a_target_of_the_attack_goes_before_the_ranks(nets):
    weight, bias = far()
    model, x = nets.linear(weight, bias), torch.full((2, 6), 0.9, dtype=torch.float64)
    attack = APGD(threat=Threat(eps=0.5, box=(0.0, 2.0)), steps=4, targets=9)
    result = attack(model, x, torch.tensor([0, 0]), target=torch.tensor([3, 4]))
    assert result.success.tolist() == [True, False]


def test_the_loss_of_targets_is_the_targeted_dlr(nets):
    """What it maximises when it is told no loss: with and without saying so the same points come out."""
    model = nets.conv(seed=3, classes=6)
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    attack = APGD(threat=Threat(eps=1e-3), steps=8, targets=1)
    found = attack(model, x, y)
    assert torch.equal(found.x_adv, dataclasses.replace(attack, loss="dlr")(model, x, y).x_adv)
    toward = ranked(model(x), y, 1)[:, 0]
    assert (dlr_toward(model(found.x_adv), y, toward) > dlr_toward(model(x), y, toward)).all()


def test_two_classes_are_enough_with_a_warning_where_dlr_was_asked_for(nets):
    model = nets.linear(torch.tensor([[1.0, 0.5], [-1.0, -0.5]]))
    x, y = torch.full((3, 2), 0.1), torch.zeros(3, dtype=torch.long)
    attack = APGD(threat=Threat(eps=0.5, box=(-1.0, 1.0)), steps=3, targets=9)
    assert attack(model, x, y).success.all()
    with pytest.warns(UserWarning, match="targeted DLR needs 4 classes"):
        assert dataclasses.replace(attack, loss="dlr")(model, x, y).success.all()


def test_in_train_mode_a_full_search_keeps_the_batch_whole(nets):
    """BatchNorm refuses a single input, and its result for one depends on the others."""
    model, sizes = nets.awkward(36), []
    model[2].register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    result = APGD(threat=Threat(eps=0.05), steps=3, targets=3, restarts=2)(model, x, y, mode="train")
    assert result.success.any()
    assert set(sizes) == {6}


class Bumpy(nn.Module):
    """A margin that rises and falls along every coordinate."""

    def forward(self, x):
        z = (torch.sin(9 * x) + 0.3 * x).flatten(1).sum(1)
        return torch.stack([torch.full_like(z, 6.0), z], 1)


def test_more_restarts_never_lose_what_fewer_found():
    x = torch.rand(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = torch.zeros(30, dtype=torch.long)
    for norm, eps in (("linf", 0.4), ("l2", 0.9), ("l1", 1.8)):
        few, many = (
            APGD(threat=Threat(norm=norm, eps=eps), steps=6, restarts=k)(Bumpy(), x, y).success for k in (1, 6)
        )
        assert (many | ~few).all()
        assert many.sum() > few.sum()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"targets": -1}, "targets must be a whole number of 0 or more; got -1"),
        ({"targets": 1.5}, "targets must be a whole number"),
        ({"rho": 1.5}, r"rho must be a number in \[0, 1\]"),
        ({"steps": 0}, "steps must be a whole number of 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings_, message):
    with pytest.raises(UserError, match=message):
        APGD(**settings_)
