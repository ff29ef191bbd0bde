"""HopSkipJump on half-spaces, where the nearest point is known."""

import math

import pytest
import torch

from buttress.attacks.black_box.hopskipjump import HopSkipJump, halvings, normal_direction
from buttress.errors import UserError
from buttress.threat import Threat

WEIGHT = torch.tensor([0.9, -2.0, 0.3, 1.1, -0.2, 0.05, -1.3, 0.7, 0.4, -0.6], dtype=torch.float64)


def wide(norm):
    return Threat(norm=norm, eps=math.inf, box=(-2.0, 3.0))  # the nearest points are inside


def half_space(nets, norm, dtype=torch.float64):
    """A model with two classes, inputs, its own classes as the truth, and their distances to the boundary."""
    model = nets.linear(torch.stack([-WEIGHT / 2, WEIGHT / 2]).to(dtype))
    x = torch.rand(6, 10, dtype=dtype, generator=torch.Generator().manual_seed(2))
    length = WEIGHT.norm() if norm == "l2" else WEIGHT.abs().sum()  # the dual norm
    return model, x, model(x).argmax(1), (x.double() @ WEIGHT).abs() / length


@pytest.mark.representatives(norm=["linf"])
@pytest.mark.parametrize(("targeted", "dtype"), [(False, torch.float32), (True, torch.float64)])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_comes_to_the_nearest_point_of_a_half_space(nets, norm, dtype, targeted):
    model, x, y, nearest = half_space(nets, norm, dtype)
    attack = HopSkipJump(threat=wide(norm), queries=900)
    result = attack(model, x, y, target=1 - y if targeted else None)
    assert result.success.all()
    assert (result.distance >= nearest * (1 - 1e-6)).all()
    assert (result.distance <= (1.05 if norm == "l2" else 1.2) * nearest).all()


# Logits that are the inputs: the nearest point of a class pools its value with those above it, to their mean.
POOLED = [([3.0, 1.0, 0.0], [1.5, 1.0, 1.5]), ([3.0, 2.5, 0.0], [5.5 / 3, 5.5 / 3, 5.5 / 3])]


def test_comes_to_the_nearest_point_of_the_target_among_three_classes(nets):
    x, nearest = (torch.tensor(points, dtype=torch.float64) for points in zip(*POOLED, strict=True))
    y, target = torch.tensor([0, 0]), torch.tensor([2, 2])
    threat = Threat(norm="l2", eps=math.inf, box=(-9.0, 9.0))
    result = HopSkipJump(threat=threat, queries=700)(nets.linear(torch.eye(3).double()), x, y, target=target)
    assert torch.equal(result.x_adv.argmax(1), target)
    assert result.success.all()
    assert (result.distance >= (nearest - x).norm(dim=1)).all()
    assert (result.distance <= 1.1 * (nearest - x).norm(dim=1)).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_works_on_decisions_alone_and_without_a_box(norm):
    def decide(x):
        success = (x.double() @ WEIGHT > 0.3).double()
        return torch.stack([1 - success, success], 1) * 3 - 1

    x = torch.rand(6, 10, generator=torch.Generator().manual_seed(3))
    y = decide(x).argmax(1)
    result = HopSkipJump(threat=Threat(norm=norm, eps=0.8, box=None), queries=600)(decide, x, y)
    length = WEIGHT.norm() if norm == "l2" else WEIGHT.abs().sum()
    nearest = (x.double() @ WEIGHT - 0.3).abs() / length
    assert torch.equal(result.success, nearest < 0.8)  # it looks further than eps, and counts what is within
    assert (result.distance[result.success] <= 1.15 * nearest[result.success] + 1e-6).all()
    assert (result.backwards == 0).all()


@pytest.mark.parametrize("queries", [1, 9, 10, 150])
def test_asks_exactly_as_often_as_it_may(nets, queries):
    model, x, y, _ = half_space(nets, "l2")
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    result = HopSkipJump(threat=wide("l2"), queries=queries)(model, x, y)
    assert (result.forwards == queries + 2).all()  # the unperturbed input and the verdict
    assert sum(seen) == 6 * (queries + 2)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_returns_the_nearest_of_all_points_that_it_saw_beat_the_model(nets, norm):
    model = nets.conv()
    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    seen = []
    hook = model.register_forward_hook(lambda module, args, out: seen.append((args[0].clone(), out.argmax(1) != y)))
    attack = HopSkipJump(threat=Threat(norm=norm, eps=math.inf), queries=400)
    result = attack(model, x, y)
    hook.remove()
    distances = [float(attack.threat.distance(point, x)) for point, success in seen if success]
    assert len(distances) > 50
    assert float(result.distance) == min(distances)
    assert min(distances) < 0.9 * distances[0]


def test_the_first_turn_halves_then_probes_a_sphere_then_jumps_along_the_estimate(nets):
    """Row by row and question by question, as the class says."""
    model, x, y, nearest = half_space(nets, "l2")
    x, y, nearest = x[:1], y[:1], nearest[:1]
    seen = []
    hook = model.register_forward_hook(lambda module, args, out: seen.append((args[0][0].clone(), out.argmax(1) != y)))
    HopSkipJump(threat=wide("l2"), queries=60, probes=30)(model, x, y)
    hook.remove()
    points, success = torch.stack([point for point, _ in seen])[1:], torch.cat([won for _, won in seen])[1:]
    start = int(success.int().argmax())
    low, high = 0.0, 1.0
    for k in range(start + 1, start + 9):  # 8 halvings between the input and the start
        torch.testing.assert_close(points[k], x[0] + (low + high) / 2 * (points[start] - x[0]), rtol=0, atol=1e-12)
        low, high = (low, (low + high) / 2) if success[k] else ((low + high) / 2, high)
    centre = x[0] + high * (points[start] - x[0])
    probes = points[start + 9 : start + 39] - centre
    torch.testing.assert_close(probes.norm(dim=1), torch.full((30,), 0.5).double())  # a tenth of the box
    weights = 2 * success[start + 9 : start + 39].double() - 1
    estimate = ((weights - weights.mean())[:, None] * probes).sum(0)
    jump = points[start + 39] - centre
    torch.testing.assert_close(jump / jump.norm(), estimate / estimate.norm())
    torch.testing.assert_close(jump.norm(), (centre - x[0]).norm())  # the distance over sqrt(1)
    k = start + 39
    while not success[k]:
        k += 1
        torch.testing.assert_close(points[k] - centre, jump * 0.5 ** (k - start - 39))


def test_the_estimate_of_the_normal():
    plain = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    weighed = torch.tensor([[3.0, -1.0], [-1.0, -2.0]])
    mean = torch.tensor([0.5, -1.0])  # in the second row no probe beat the model
    assert normal_direction(weighed, plain, mean).tolist() == [[2.5, -2.0], [-1.0, -2.0]]


@pytest.mark.parametrize("features", [1, 10, 784, 3072])
@pytest.mark.parametrize(("norm", "power"), [("l2", 1.5), ("linf", 2.0)])
def test_a_bisection_ends_below_the_papers_threshold(features, norm, power):
    count = halvings(features, norm)
    assert 2.0**-count <= features**-power
    assert count == 8 or 2.0 ** (1 - count) > features**-power


@pytest.mark.representatives(norm=["linf"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_input_fares_alike_in_any_batch(nets, norm):
    model, x, y, _ = half_space(nets, norm)
    ids = torch.tensor([5, 900, 2, 77, 31, 8])
    attack = HopSkipJump(threat=wide(norm), queries=200)
    whole = attack(model, x, y, ids=ids)
    for part in ([3], [5, 0], [1, 2, 4]):
        other = attack(model, x[part], y[part], ids=ids[part])
        torch.testing.assert_close(other.x_adv, whole.x_adv[part], rtol=0, atol=1e-9)


def test_an_input_that_beats_the_model_already_stays_and_one_that_nothing_beats_too(nets):
    model, x, y, _ = half_space(nets, "l2")
    y[2] = 1 - y[2]
    result = HopSkipJump(threat=wide("l2"), queries=60)(model, x, y)
    assert torch.equal(result.x_adv[2], x[2])
    assert result.success.all()
    never = nets.linear(torch.zeros(2, 10), bias=[2.0, 0.0])
    x = torch.rand(3, 10)
    result = HopSkipJump(queries=40)(never, x, torch.zeros(3, dtype=torch.long))
    assert torch.equal(result.x_adv, x)
    assert not result.success.any()


def test_with_a_budget_an_input_leaves_once_it_is_within(nets):
    model, x, y, nearest = half_space(nets, "linf")
    threat = Threat(norm="linf", eps=float(1.3 * nearest.max()), box=(-2.0, 3.0))
    result = HopSkipJump(threat=threat, queries=900)(model, x, y, search="first")
    assert result.success.all()
    assert (result.distance <= threat.eps).all()
    assert (result.forwards < 600).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": 0}, "queries must be a whole number of 1 or more; got 0"),
        ({"probes": 2.5}, "probes must be a whole number of 1 or more; got 2.5"),
        ({"threat": Threat(norm="l1")}, "defined in l2 and linf; got l1"),
        ({"threat": Threat(norm="l2", eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        HopSkipJump(**wrong)
