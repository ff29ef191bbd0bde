"""ZOO: its slopes against true ones, its first step against Adam's, its result against the nearest point."""

import math

import pytest
import torch

from buttress import tasks
from buttress.attacks.black_box.zoo import ZOO
from buttress.engine.oracle import Oracle
from buttress.engine.runner import Runner
from buttress.errors import UserError
from buttress.threat import Threat

WEIGHT = torch.tensor([0.9, -2.0, 0.3, 1.1, -0.2, 0.05, -1.3, 0.7, 0.4, -0.6], dtype=torch.float64)
WIDE = Threat(norm="l2", eps=math.inf, box=(-2.0, 3.0))  # the nearest points are inside


def half_space(nets, weight=WEIGHT):
    """Two classes whose margin, for the truth 0, is ``weight`` times the input."""
    return nets.linear(torch.stack([-weight / 2, weight / 2]))


def data(nets):
    x = torch.rand(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x, half_space(nets)(x).argmax(1), (x @ WEIGHT).abs() / WEIGHT.norm()


def oracle(model, x, target=None):
    y = torch.zeros(len(x), dtype=torch.long)
    return Oracle(Runner(model, tasks.classification, "fp32", len(x)), x, y, target)


@pytest.mark.parametrize("targeted", [False, True])
def test_slopes_of_a_linear_margin_are_its_weights_also_at_the_edges_of_the_box(nets, targeted):
    x = torch.tensor([0.0, 1.0, 0.3], dtype=torch.float64)[:, None].expand(3, 10).clone()
    asked = oracle(half_space(nets), x, torch.ones(3, dtype=torch.long) if targeted else None)
    for index in range(10):
        where = torch.tensor([index, (index + 1) % 10, (index + 5) % 10])
        slope, won = ZOO(confidence=50.0).within().slope(asked, x, where)
        torch.testing.assert_close(slope, WEIGHT[where], rtol=0, atol=1e-9)
        assert won.tolist() == [bool(WEIGHT[index] > 0), False, False]  # the first is on the boundary
    assert (asked.forwards == 20).all()


def test_beyond_the_confidence_there_is_no_slope(nets):
    x = torch.full((1, 10), 0.5, dtype=torch.float64)
    x[0, 1] = 0  # the margin is 0.675
    for confidence, expected in ((0.6, 0.0), (0.7, 0.9)):
        slope, won = ZOO(confidence=confidence).within().slope(oracle(half_space(nets), x), x, torch.tensor([0]))
        assert float(slope) == pytest.approx(expected, abs=1e-9)
        assert won.all()


def test_slopes_are_those_of_the_gradient_for_a_model_that_is_not_linear(nets):
    model = nets.conv(dtype=torch.float64)
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    logits = model(x)
    (grad,) = torch.autograd.grad((logits[:, 1:].amax(1) - logits[:, 0]).sum(), x)
    x = x.detach()
    for index in (0, 17, 35):
        slope, _ = ZOO(confidence=50.0).within().slope(oracle(model, x), x, torch.full((4,), index))
        torch.testing.assert_close(slope, grad.flatten(1)[:, index], rtol=1e-5, atol=1e-7)


def test_each_sweep_moves_every_coordinate_once_and_first_by_the_learning_rate(nets):
    """Adam's first step is its learning rate, whatever the slope; the distance has no slope yet."""
    model, seen = half_space(nets), []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    x = torch.full((2, 10), 0.5, dtype=torch.float64)  # w.x is -0.325: the model says 0
    x[:, 1] = 0.9
    ZOO(threat=WIDE, queries=22, search_steps=1, lr=0.004 / 5)(model, x, torch.zeros(2, dtype=torch.long))
    before_last = (seen[21] + seen[22]) / 2  # after the unperturbed input, in pairs about the iterate
    torch.testing.assert_close(before_last, x + 0.004 * WEIGHT.sign(), rtol=0, atol=1e-7)


@pytest.mark.representatives(targeted=[True])
@pytest.mark.parametrize("targeted", [False, True])
def test_comes_to_the_nearest_point_of_a_half_space(nets, targeted):
    x, y, nearest = data(nets)
    attack = ZOO(threat=WIDE, queries=2400, lr=0.01 / 5, c=1 / 25)
    result = attack(half_space(nets), x, y, target=1 - y if targeted else None)
    assert result.success.all()
    assert (result.distance >= nearest * (1 - 1e-9)).all()
    assert (result.distance <= 1.1 * nearest).all()


def test_c_grows_tenfold_until_something_beats_the_model(nets):
    """A margin so faint that the distance outweighs it with c = 1 and 10, and not with 100."""
    weight = torch.full((1,), 0.02, dtype=torch.float64)
    model = nets.linear(torch.stack([-weight / 2, weight / 2]), bias=torch.tensor([0.005, -0.005]).double())
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    # The squared distance minus c times the margin has its minimum at 0.01 c, and the boundary is at 0.5.
    for search_steps, success in ((1, False), (2, False), (3, True)):
        attack = ZOO(queries=300 * search_steps, search_steps=search_steps)
        result = attack(model, x, y)
        assert bool(result.success) == success
    assert float(result.distance) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("queries", [1, 2, 6, 7, 40])
def test_asks_exactly_as_often_as_it_may(nets, queries):
    model, seen = half_space(nets), []
    x, y, _ = data(nets)
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    result = ZOO(threat=WIDE, queries=queries)(model, x, y)
    assert (result.forwards == queries // 2 * 2 + 2).all()  # the unperturbed input and the verdict
    assert sum(seen) == 6 * (queries // 2 * 2 + 2)


def test_returns_the_nearest_of_all_points_that_it_saw_beat_the_model_and_never_leaves_the_box():
    """Without gradients, and with steps in the logits."""

    def steps(x):
        seen.append(x.clone())
        margin = (x.flatten(1).double() @ WEIGHT * 64).floor() / 64
        return torch.stack([-margin, margin], 1).detach()

    seen = []
    x = torch.rand(1, 10, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    y = steps(x).argmax(1)
    result = ZOO(queries=900, h=0.05, c=10.0, lr=0.05)(steps, x, y)
    points = torch.cat(seen[:-1])
    distances = (points.double() - x.double()).norm(dim=1)[steps(points).argmax(1) != y]
    assert result.success.all()
    assert float(result.distance) == float(distances.min())
    assert points.aminmax().min >= 0
    assert points.aminmax().max <= 1
    assert (result.backwards == 0).all()


def test_an_input_fares_alike_in_any_batch(nets):
    x, y, _ = data(nets)
    model, attack, ids = half_space(nets), ZOO(threat=WIDE, queries=200), torch.tensor([5, 900, 2, 77, 31, 8])
    whole = attack(model, x, y, ids=ids)
    for part in ([3], [5, 0], [1, 2, 4]):
        other = attack(model, x[part], y[part], ids=ids[part])
        torch.testing.assert_close(other.x_adv, whole.x_adv[part], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": 0}, "queries must be a whole number of 1 or more; got 0"),
        ({"search_steps": 0}, "search_steps must be a whole number of 1 or more; got 0"),
        ({"c": 0.0}, "c must be a finite number above 0"),
        ({"h": math.nan}, "h must be a finite number above 0"),
        ({"confidence": -1.0}, "confidence must be a finite number of 0 or more"),
        ({"threat": Threat(norm="linf")}, "defined in l2; got linf"),
        ({"threat": Threat(norm="l2", eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        ZOO(**wrong)
