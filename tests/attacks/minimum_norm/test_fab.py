"""FAB: the ways to a plane against bisection and brute force, nearest boundaries that are known, and what it costs."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from buttress.attacks import FAB, FMN
from buttress.attacks.minimum_norm.fab_planes import plane_distance, to_plane
from buttress.errors import UserError
from buttress.threat import Threat

NORMS = {"linf": math.inf, "l2": 2, "l1": 1}


def planes(n, d, seed, box):
    generator = torch.Generator().manual_seed(seed)
    low, high = box or (-1.0, 1.0)
    point = low + (high - low) * torch.rand(n, d, dtype=torch.float64, generator=generator)
    point = torch.where(torch.rand(n, d, generator=generator) < 0.2, high, point)
    slope = torch.randn(n, d, dtype=torch.float64, generator=generator)
    slope = torch.where(torch.rand(n, d, generator=generator) < 0.1, 0.0, slope)
    value = torch.randn(n, dtype=torch.float64, generator=generator) * slope.abs().sum(1) / 4
    return point, value, slope


def room_of(point, value, slope, box):
    """How far each coordinate can go towards the plane, and which way that is."""
    direction = -value.sign()[:, None] * slope.sign()
    if box is None:
        return torch.full_like(point, 1e9), direction
    return torch.where(direction > 0, box[1] - point, point - box[0]), direction


def by_bisection(point, value, slope, norm, box):
    """The size of the smallest way, from a search for the multiplier that just reaches the plane."""
    room, _ = room_of(point, value, slope, box)
    pace = slope.abs() if norm == "l2" else (slope != 0).double()
    low, high = torch.zeros(len(point), 1, dtype=torch.float64), torch.full((len(point), 1), 1e9, dtype=torch.float64)
    for _ in range(110):
        middle = (low + high) / 2
        short = (slope.abs() * (middle * pace).minimum(room)).sum(1, keepdim=True) < value.abs()[:, None]
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (high * pace).minimum(room)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    box=st.sampled_from([None, (0.0, 1.0), (-0.3, 0.9)]),
    d=st.sampled_from([1, 2, 5, 30]),
    seed=st.integers(0, 10_000),
)
def test_the_way_ends_on_the_plane_in_the_box_or_as_near_as_the_box_lets_it(norm, box, d, seed):
    point, value, slope = planes(8, d, seed, box)
    way = to_plane(point, value, slope, norm, box)
    room, direction = room_of(point, value, slope, box)
    optional_method = (slope.abs() * room).sum(1)
    reached = value + (slope * way).sum(1)
    expected = value.sign() * (value.abs() - optional_method).clamp(min=0)
    torch.testing.assert_close(reached, expected, rtol=0, atol=1e-9)
    assert (way.abs() <= room + 1e-12).all()
    assert (way * direction >= 0).all()
    if norm != "l1":
        smallest = by_bisection(point, value, slope, norm, box)
        torch.testing.assert_close(way.abs(), smallest, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_no_other_point_on_the_plane_is_nearer(norm):
    """Random ways in the box, each stretched or bent until it meets the plane exactly."""
    box = (0.0, 1.0)
    point, value, slope = planes(200, 3, 5, box)
    size = torch.linalg.vector_norm(to_plane(point, value, slope, norm, box), NORMS[norm], dim=1)
    solved = torch.zeros(200, dtype=torch.bool)
    grid = torch.linspace(0, 1, 21, dtype=torch.float64)
    for first, second, i in itertools.product(grid, grid, range(3)):  # two coordinates given, the third follows
        others = [j for j in range(3) if j != i]
        end = torch.zeros_like(point)
        end[:, others[0]], end[:, others[1]] = first, second
        rest = -value + (slope * point).sum(1) - (slope * end).sum(1)
        end[:, i] = rest / slope[:, i].where(slope[:, i] != 0, math.nan)
        allowed = (end[:, i] >= 0) & (end[:, i] <= 1)
        other = torch.linalg.vector_norm(end - point, NORMS[norm], dim=1)
        assert (size <= other + 1e-9)[allowed].all()
        solved |= allowed
    assert solved.sum() > 150


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_slope_there_is_no_way_and_no_plane(norm):
    point = torch.rand(3, 4, dtype=torch.float64)
    nothing = torch.zeros(3, 4, dtype=torch.float64)
    value = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    for box in (None, (0.0, 1.0)):
        assert torch.equal(to_plane(point, value, nothing, norm, box), nothing)
    assert torch.equal(plane_distance(value[:, None], nothing[:, None], norm), torch.full((3, 1), math.inf).double())


@pytest.mark.parametrize("norm", NORMS)
def test_plane_distance_is_the_length_of_the_way_without_a_box(norm):
    point, value, slope = planes(20, 6, 9, None)
    size = torch.linalg.vector_norm(to_plane(point, value, slope, norm, None), NORMS[norm], dim=1)
    torch.testing.assert_close(plane_distance(value[:, None], slope[:, None], norm)[:, 0], size)


def linear(nets, classes=5, d=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, d, dtype=torch.float64, generator=generator)
    x = 0.1 + 0.8 * torch.rand(30, d, dtype=torch.float64, generator=generator)
    model = nets.linear(weight)
    return model, weight, x, model(x).argmax(1)


def nearest_boundary(weight, x, y, norm, box):
    """(N, C) the exact distance to each class's boundary, from the bisection above; infinite where out of the box."""
    distances = []
    for k in range(len(weight)):
        slope = weight[k] - weight[y]
        value = (slope * x).sum(1)
        room, _ = room_of(x, value, slope, box)
        if norm == "l1":
            size = []
            for v, s, r in zip(value.abs(), slope.abs(), room, strict=True):
                left, total = float(v), 0.0
                for i in s.argsort(descending=True):
                    step = min(float(r[i]), left / float(s[i])) if s[i] > 0 else 0.0
                    left, total = left - step * float(s[i]), total + step
                size.append(total)
            way = torch.tensor(size, dtype=torch.float64)
        else:
            way = torch.linalg.vector_norm(by_bisection(x, value, slope, norm, box), NORMS[norm], dim=1)
        out = (slope.abs() * room).sum(1) < value.abs()
        distances.append(torch.where(out | (y == k), math.inf, way))
    return torch.stack(distances, 1)


@pytest.mark.parametrize("targets", [0, 9])
@pytest.mark.parametrize("norm", NORMS)
def test_nearest_boundary_of_a_linear_model_in_the_box(nets, norm, targets):
    model, weight, x, y = linear(nets)
    threat = Threat(norm=norm, eps=math.inf)
    result = FAB(threat=threat, steps=30, targets=targets)(model, x, y)
    best = nearest_boundary(weight, x, y, norm, threat.box).amin(1)
    assert result.success.all()
    assert (result.distance >= best * (1 - 1e-9)).all()
    assert (result.distance <= 1.02 * best).all()


@pytest.mark.parametrize("norm", NORMS)
def test_nearest_boundary_of_the_class_that_was_asked_for(nets, norm):
    model, weight, x, y = linear(nets, classes=3)
    target = (y + 1) % 3
    distances = nearest_boundary(weight, x, y, norm, (0.0, 1.0))
    result = FAB(threat=Threat(norm=norm, eps=math.inf), steps=40, restarts=2)(model, x, y, target=target)
    best = distances.gather(1, target[:, None])[:, 0]
    alone = distances.argmin(1) == target  # elsewhere a third class may lie between
    assert alone.sum() > 5
    assert (result.distance <= 1.02 * best)[alone].all()
    assert torch.equal(model(result.x_adv).argmax(1)[result.success], target[result.success])


def test_in_l1_targets_among_several_rivals_are_reached():
    """Steps along single coordinates went round among the rivals of a linear network; FMN's distances are the bound."""
    for seed in (1, 2, 3):
        random = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6)).double()
        model[1].weight.data = torch.randn(6, 16, generator=random).double()
        x = 0.3 + 0.4 * torch.rand(20, 1, 4, 4, generator=random).double()
        y = model(x).argmax(1)
        target = (y + 1 + torch.randint(5, (20,), generator=random)) % 6
        fab, fmn = (kind(threat=Threat(norm="l1", eps=8.0))(model, x, y, target=target) for kind in (FAB, FMN))
        assert (fab.success | ~fmn.success).all()
        farther = fab.distance / fmn.distance
        assert farther.median() <= 1.1  # most are as near, some end at a corner of their region further on
        assert farther.max() <= 2


def test_a_target_is_looked_for_behind_a_third_class(nets):
    """On a line: class 1 leads from 0 to 1.5, class 2 from there on; the plane between truth and target is at 0.75."""
    model = nets.linear([[0.0], [1.0], [2.0]], [0.0, 0.0, -1.5])
    threat = Threat(norm="l2", eps=math.inf, box=(-10.0, 10.0))
    result = FAB(threat=threat)(model, torch.tensor([[-0.5]]), torch.tensor([0]), target=2)
    assert result.success.all()
    assert 2.0 <= float(result.distance) <= 2.02


def test_wrong_inputs_stay_where_they_are(nets):
    model, _, x, y = linear(nets)
    result = FAB(steps=3)(model, x, (y + 1) % 5)
    assert torch.equal(result.x_adv, x)
    assert result.success.all()


def test_a_finite_eps_says_what_counts_as_found(nets):
    model, weight, x, y = linear(nets)
    best = nearest_boundary(weight, x, y, "l2", (0.0, 1.0)).amin(1)
    eps = float(best.median())
    for search in ("full", "first"):
        result = FAB(threat=Threat(norm="l2", eps=eps), steps=30, targets=9)(model, x, y, search=search)
        sure = (best - eps).abs() > 0.03 * eps
        assert torch.equal(result.success[sure], (best < eps)[sure])


@pytest.mark.parametrize(("targets", "backwards"), [(0, 4 * 5), (2, 2 * 5), (9, 4 * 5)])
def test_a_step_costs_one_forward(nets, targets, backwards):
    model, _, x, y = linear(nets)
    result = FAB(threat=Threat(eps=1e-9), steps=5, targets=targets)(model, x, y)
    runs = 1 if targets == 0 else min(targets, 4)
    assert set(result.forwards.tolist()) == {1 + runs * (5 + 1) + 1}
    assert set(result.backwards.tolist()) == {backwards}


class Plateau(nn.Module):
    """Flat around the middle; further out every coordinate counts, and in l2 two of them lead out soonest."""

    def forward(self, x):
        z = ((x - 0.5).abs() - 0.05).clamp(min=0).flatten(1).sum(1)
        return torch.stack([torch.full_like(z, 0.12), z], 1)


@pytest.mark.parametrize(("norm", "best"), [("linf", 0.05 + 0.02), ("l2", 2**0.5 * 0.11), ("l1", 0.05 + 0.12)])
def test_restarts_find_what_a_run_from_the_input_cannot_see(norm, best):
    x, y = torch.full((20, 6), 0.5, dtype=torch.float64), torch.zeros(20, dtype=torch.long)
    for targets in (0, 1):
        one, several = (
            FAB(threat=Threat(norm=norm, eps=math.inf), steps=40, restarts=k, targets=targets)(Plateau(), x, y)
            for k in (1, 4)
        )
        assert not one.success.any()
        assert torch.equal(one.x_adv, x)
        assert several.success.all()

        assert (several.distance >= best * (1 - 1e-9)).all()
        assert several.distance.min() <= 1.3 * best


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"targets": -1}, "targets must be a whole number"),
        ({"alpha_max": 1.5}, r"alpha_max must be a number in \[0, 1\]"),
        ({"beta": -0.1}, r"beta must be a number in \[0, 1\]"),
        ({"eta": 0.0}, "eta must be a finite number above 0"),
        ({"threat": Threat(eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings_, message):
    with pytest.raises(UserError, match=message):
        FAB(**settings_)
