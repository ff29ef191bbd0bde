"""The Boundary Attack on half-spaces, where the nearest point is known, and what decision attacks share."""

import math

import pytest
import torch

from buttress.attacks.black_box.boundary_attack import BoundaryAttack
from buttress.attacks.black_box.decision_based import Line, starting_points
from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat

WEIGHT = torch.tensor([0.9, -2.0, 0.3, 1.1, -0.2, 0.05, -1.3, 0.7, 0.4, -0.6], dtype=torch.float64)
WIDE = Threat(norm="l2", eps=math.inf, box=(-2.0, 3.0))  # the nearest points are inside


def half_space(nets, dtype=torch.float64):
    """A model with two classes, inputs, its own classes as the truth, and their distances to the boundary."""
    model = nets.linear(torch.stack([-WEIGHT / 2, WEIGHT / 2]).to(dtype))
    x = torch.rand(6, 10, dtype=dtype, generator=torch.Generator().manual_seed(2))
    return model, x, model(x).argmax(1), (x.double() @ WEIGHT).abs() / WEIGHT.norm()


def decisions(x):
    """No module, and no gradient: logits in steps of a quarter."""
    margin = (x.flatten(1).double() @ WEIGHT.to(x.device) * 4).floor() / 4
    return torch.stack([-margin, margin], 1).detach()


@pytest.mark.representatives(targeted=[False])
@pytest.mark.parametrize(("targeted", "dtype"), [(False, torch.float32), (True, torch.float64)])
def test_comes_to_the_nearest_point_of_a_half_space(nets, dtype, targeted):
    model, x, y, nearest = half_space(nets, dtype)
    result = BoundaryAttack(threat=WIDE, queries=900)(model, x, y, target=1 - y if targeted else None)
    assert result.success.all()
    assert (result.distance >= nearest * (1 - 1e-6)).all()
    assert (result.distance <= 1.01 * nearest).all()


# Logits that are the inputs: the nearest point of a class pools its value with those above it, to their mean.
POOLED = [([3.0, 1.0, 0.0], [1.5, 1.0, 1.5]), ([3.0, 2.5, 0.0], [5.5 / 3, 5.5 / 3, 5.5 / 3])]


def test_comes_to_the_nearest_point_of_the_target_among_three_classes(nets):
    x, nearest = (torch.tensor(points, dtype=torch.float64) for points in zip(*POOLED, strict=True))
    y, target = torch.tensor([0, 0]), torch.tensor([2, 2])
    threat = Threat(norm="l2", eps=math.inf, box=(-9.0, 9.0))
    result = BoundaryAttack(threat=threat, queries=700)(nets.linear(torch.eye(3).double()), x, y, target=target)
    assert torch.equal(result.x_adv.argmax(1), target)
    assert result.success.all()
    assert (result.distance >= (nearest - x).norm(dim=1)).all()
    assert (result.distance <= 1.05 * (nearest - x).norm(dim=1)).all()


def test_comes_to_the_boundary_without_a_box_and_without_gradients():
    x = torch.rand(6, 10, generator=torch.Generator().manual_seed(3))
    y = decisions(x).argmax(1)
    result = BoundaryAttack(threat=Threat(norm="l2", eps=1.0, box=None), queries=600)(decisions, x, y)
    assert result.success.all()
    assert torch.equal(decisions(result.x_adv).argmax(1), 1 - y)
    assert (result.backwards == 0).all()
    # The classes part where w.x is 0.25 (logits -m and m are equal at 0, which is class 0).
    nearest = (x.double() @ WEIGHT - 0.25).abs() / WEIGHT.norm()
    assert (result.distance <= 1.05 * nearest + 1e-6).all()


@pytest.mark.parametrize("queries", [1, 2, 13, 60])
def test_asks_exactly_as_often_as_it_may(nets, queries):
    model, x, y, _ = half_space(nets)
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    result = BoundaryAttack(threat=WIDE, queries=queries)(model, x, y)
    assert (result.forwards == queries + 2).all()  # the unperturbed input and the verdict
    assert sum(seen) == 6 * (queries + 2)


def test_returns_the_nearest_of_all_points_that_it_saw_beat_the_model(nets):
    model = nets.conv()
    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    seen = []
    hook = model.register_forward_hook(lambda module, args, out: seen.append((args[0].clone(), out.argmax(1) != y)))
    result = BoundaryAttack(queries=300)(model, x, y)
    hook.remove()
    distances = [float((point.double() - x.double()).norm()) for point, success in seen if success]
    assert len(distances) > 50
    assert float(result.distance) == min(distances)
    assert min(distances) < 0.9 * distances[0]


def test_an_input_walks_alike_in_any_batch(nets):
    model, x, y, _ = half_space(nets)
    ids = torch.tensor([5, 900, 2, 77, 31, 8])
    attack = BoundaryAttack(threat=WIDE, queries=120)
    whole = attack(model, x, y, ids=ids)
    for part in ([3], [5, 0], [1, 2, 4]):
        other = attack(model, x[part], y[part], ids=ids[part])
        torch.testing.assert_close(other.x_adv, whole.x_adv[part], rtol=0, atol=1e-9)


def test_an_input_that_beats_the_model_already_stays(nets):
    model, x, y, _ = half_space(nets)
    y[2] = 1 - y[2]
    result = BoundaryAttack(threat=WIDE, queries=60)(model, x, y)
    assert torch.equal(result.x_adv[2], x[2])
    assert result.success.all()
    assert (result.distance > 0).tolist() == [True, True, False, True, True, True]


def test_with_a_budget_an_input_leaves_once_it_is_within(nets):
    model, x, y, nearest = half_space(nets)
    threat = Threat(norm="l2", eps=float(1.3 * nearest.max()), box=(-2.0, 3.0))
    result = BoundaryAttack(threat=threat, queries=900)(model, x, y, search="first")
    assert result.success.all()
    assert (result.distance <= threat.eps).all()
    assert (result.forwards < 300).all()


def test_where_nothing_beats_the_model_the_input_comes_back(nets):
    model = nets.linear(torch.zeros(2, 10), bias=[2.0, 0.0])
    x = torch.rand(3, 10)
    result = BoundaryAttack(queries=40)(model, x, torch.zeros(3, dtype=torch.long))
    assert torch.equal(result.x_adv, x)
    assert not result.success.any()


def test_starts_from_a_flat_colour_where_noise_beats_nothing():
    def flat(x):
        spread = x.flatten(1).std(1) - 0.1
        return torch.stack([spread, -spread], 1)

    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    result = BoundaryAttack(queries=100)(flat, x, torch.zeros(4, dtype=torch.long))
    assert result.success.all()
    assert (result.x_adv.flatten(1).std(1) > 0.09).all()  # and went back to where it is hardly flat


def test_starting_points_in_a_box_are_of_three_kinds():
    x, random = torch.full((5, 3, 8, 8), 0.2), Random(0, torch.arange(5))
    threat = Threat(box=(-1.0, 2.0))
    noise, ends, colour = (starting_points(x, threat, random.fork(t), t) for t in range(3))
    assert len(noise.unique()) > 900
    assert noise.aminmax().min >= -1
    assert noise.aminmax().max <= 2
    assert noise.mean().sub(0.5).abs() < 0.1
    assert ends.unique().tolist() == [-1, 2]
    assert len(colour.unique()) == 15
    assert torch.equal(colour, colour[:, :, :1, :1].expand_as(x))


def test_starting_points_without_a_box_go_further_and_further():
    x, random = torch.randn(4, 50), Random(0, torch.arange(4))
    threat = Threat(eps=0.25, box=None)
    for trial in range(9):
        reach = (starting_points(x, threat, random.fork(trial), trial) - x).abs().amax()
        assert 0.2 * 2 ** (trial // 3) <= reach <= 0.2501 * 2 ** (trial // 3) or trial % 3 == 2
        assert reach <= 0.2501 * 2 ** (trial // 3)


def test_a_line_halves_the_way_in_l2_and_the_radius_in_linf():
    x, far = torch.zeros(2, 2), torch.tensor([[4.0, 1.0], [4.0, 1.0]])
    for norm, middle in (("l2", [2.0, 0.5]), ("linf", [2.0, 1.0])):
        line = Line(x, Threat(norm=norm))
        line.aim(torch.tensor([True, True]), far)
        assert line.middle().tolist() == [middle, middle]
        line.learn(torch.tensor([True, True]), line.middle(), torch.tensor([True, False]))
        assert line.point.tolist() == [middle, [4.0, 1.0]]
        assert line.middle()[:, 0].tolist() == [1.0, 3.0]
        line.learn(torch.tensor([False, True]), line.middle(), torch.tensor([True, True]))
        assert line.middle()[:, 0].tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": 0}, "queries must be a whole number of 1 or more; got 0"),
        ({"around": 0.0}, "around must be a finite number above 0"),
        ({"closer": math.inf}, "closer must be a finite number above 0"),
        ({"threat": Threat(norm="linf")}, "defined in l2; got linf"),
        ({"threat": Threat(norm="l2", eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        BoundaryAttack(**wrong)
