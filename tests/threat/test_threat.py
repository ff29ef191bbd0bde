"""The geometry of threats, over random inputs and against independent solutions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat, budget_text, norms
from buttress.threat.row_threat import RowThreat

NORMS = ["linf", "l2", "l1"]
cases = settings(max_examples=60, deadline=None, derandomize=True)


def draw(seed, n=6, shape=(7,), dtype=torch.float64):
    return torch.randn(n, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", NORMS)
@cases
@given(
    eps=st.sampled_from([0.0, 1e-40, 1e-8, 1 / 3, 8 / 255, 2.0, 1e6, math.inf]),
    box=st.sampled_from([None, (0.0, 1.0), (-0.1, 0.7), (1e-3, 1e3)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    shape=st.sampled_from([(1,), (7,), (3, 4, 4)]),
    scale=st.sampled_from([1e-9, 0.1, 1.0, 1e4]),
    seed=st.integers(0, 10**6),
)
def test_projection_is_inside_with_tolerance_zero_and_keeps_what_is_inside(norm, eps, box, dtype, shape, scale, seed):
    threat = Threat(norm=norm, eps=eps, box=box)
    x = draw(seed, shape=shape, dtype=dtype)
    x = threat.clip(x, x)
    projected = threat.project(x + scale * draw(seed + 1, shape=shape, dtype=dtype), x)
    assert projected.dtype == dtype
    assert threat.contains(projected, x).all()
    again = threat.project(projected, x)
    torch.testing.assert_close(again, projected, rtol=1e-6 if dtype == torch.float32 else 1e-9, atol=1e-12)
    assert torch.equal(threat.project(x, x), x)
    project, far = threat.projector(x), x + scale * draw(seed + 1, shape=shape, dtype=dtype)
    assert threat.contains(project(far), x).all()
    torch.testing.assert_close(project(far), projected, rtol=1e-6 if dtype == torch.float32 else 1e-9, atol=1e-12)


def test_projection_in_linf_is_the_clamp():
    threat, x, z = Threat(eps=0.3), draw(0).sigmoid(), draw(1)
    expected = z.maximum(x - 0.3).minimum(x + 0.3).clamp(0, 1)
    torch.testing.assert_close(threat.project(z, x), expected, rtol=0, atol=1e-15)


def test_projection_in_l2_is_along_the_ray():
    threat, x, z = Threat(norm="l2", eps=0.5, box=None), draw(0), draw(1)
    size = (z - x).norm(dim=1, keepdim=True)
    torch.testing.assert_close(threat.project(z, x), x + (z - x) * (0.5 / size).clamp(max=1), rtol=0, atol=1e-11)


def test_projection_in_l2_is_along_the_ray_and_then_into_the_box():
    threat, x = Threat(norm="l2", eps=0.5), torch.tensor([[0.9, 0.0]], dtype=torch.float64)
    direction = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    expected = (x + 0.5 * direction / direction.norm()).clamp(0, 1)
    torch.testing.assert_close(threat.project(x + direction, x), expected, rtol=0, atol=1e-11)


@cases
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.01, 0.5, 3.0, 50.0]))
def test_projection_in_l1_is_soft_thresholding_by_bisection(seed, eps):
    x, z = draw(seed), draw(seed + 1)
    expected = torch.empty_like(x)
    for i, delta in enumerate(z - x):
        low, high = 0.0, float(delta.abs().max())
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if (delta.abs() - middle).clamp(min=0).sum() > eps else (low, middle)
        cut = 0.0 if delta.abs().sum() <= eps else high
        expected[i] = x[i] + delta.sign() * (delta.abs() - cut).clamp(min=0)
    projected = Threat(norm="l1", eps=eps, box=None).project(z, x)
    torch.testing.assert_close(projected, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_not_a_number_counts_as_no_perturbation(norm):
    x = draw(0).sigmoid()
    z = x + 0.01
    z[0, 0] = torch.nan
    z[1, 1] = torch.inf
    threat = Threat(norm=norm, eps=0.5)
    projected = threat.project(z, x)
    assert projected[0, 0] == x[0, 0]
    assert threat.contains(projected, x).all()


def test_contains_tells_what_is_outside():
    x = torch.full((4, 3), 0.5, dtype=torch.float64)
    z = x + torch.tensor([[0.1, 0, 0], [0.1, 0.1, 0.1], [0.6, 0, 0], [torch.nan, 0, 0]], dtype=torch.float64)
    assert Threat(eps=0.11).contains(z, x).tolist() == [True, True, False, False]
    assert Threat(norm="l2", eps=0.11).contains(z, x).tolist() == [True, False, False, False]
    assert Threat(norm="l1", eps=0.31).contains(z, x).tolist() == [True, True, False, False]
    assert Threat(eps=1.0).contains(z, x).tolist() == [True, True, False, False]  # the box
    assert Threat(eps=1.0, box=None).contains(z, x).tolist() == [True, True, True, False]
    assert Threat(eps=0.1 - 1e-9).contains(z, x, tolerance=1e-6).tolist() == [True, True, False, False]


@pytest.mark.parametrize("norm", NORMS)
def test_distance_is_the_norm_in_float64(norm):
    x = draw(0, dtype=torch.float32)
    z = x + draw(1, dtype=torch.float32)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    expected = torch.linalg.vector_norm(z.double() - x.double(), order, dim=1)
    torch.testing.assert_close(Threat(norm=norm).distance(z, x), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_starts_are_inside_and_fill_the_threat(norm, dtype):
    x = torch.full((500, 6), 0.5, dtype=dtype)
    threat = Threat(norm=norm, eps=0.2)
    start = threat.random_start(x, Random(0, torch.arange(500)))
    assert threat.contains(start, x).all()
    distance = threat.distance(start, x)
    assert distance.max() > 0.19
    delta = start.double() - 0.5
    assert (delta.mean(0).abs() < 5 * delta.std(0) / 500**0.5).all()
    if norm != "linf":  # the radius is uniform, whatever the direction
        assert abs(distance.mean() - 0.1) < 5 * 0.2 / (12 * 500) ** 0.5


def test_random_start_in_linf_is_uniform():
    from scipy.stats import kstest

    x = torch.full((200, 50), 0.5, dtype=torch.float64)
    delta = Threat(eps=0.2).random_start(x, Random(3, torch.arange(200))) - x
    assert kstest(delta.flatten().numpy(), "uniform", args=(-0.2, 0.4)).pvalue > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_an_unlimited_budget_starts_anywhere_in_the_box(norm):
    x = torch.full((200, 5), 0.5)
    start = Threat(norm=norm, eps=math.inf, box=(-1.0, 2.0)).random_start(x, Random(0, torch.arange(200)))
    assert -1 <= start.min() < -0.9
    assert 1.9 < start.max() <= 2
    with pytest.raises(UserError, match="a random start needs a finite eps or a box"):
        Threat(norm=norm, eps=math.inf, box=None).random_start(x, Random(0, torch.arange(200)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_a_step_has_its_length_and_is_the_steepest(norm, scale):
    """Hoelder: the gain of the steepest step is the step's length times the dual norm of the gradient."""
    grad = (scale * draw(1)).float()
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.0])
    x = torch.zeros(6, 7)
    delta = Threat(norm=norm, eps=1.0, box=None).ascend(x, grad, sizes)
    torch.testing.assert_close(norms(delta, norm), sizes)
    dual = norms(grad.double(), {"linf": "l1", "l2": "l2", "l1": "linf"}[norm])
    torch.testing.assert_close((delta.double() * grad).sum(1), sizes * dual, rtol=1e-5, atol=0)
    one = Threat(norm=norm, eps=1.0, box=None).ascend(x, grad, 0.3)
    torch.testing.assert_close(one[2], delta[2])


@pytest.mark.parametrize("norm", NORMS)
def test_no_gradient_no_step(norm):
    x = draw(0)
    assert torch.equal(Threat(norm=norm).ascend(x, torch.zeros_like(x), 0.3), x)


def test_l1_steps_spend_nothing_on_coordinates_that_the_box_blocks():
    x = torch.tensor([[1.0, 0.5, 0.0]])
    grad = torch.tensor([[3.0, 1.0, -2.0]])
    assert torch.equal(Threat(norm="l1", eps=1.0).ascend(x, grad, 0.25), torch.tensor([[1.0, 0.75, 0.0]]))


def test_l1_steps_take_the_largest_hundredth():
    grad = torch.arange(1.0, 301.0)[None]
    delta = Threat(norm="l1", eps=1.0, box=None).ascend(torch.zeros(1, 300), grad, 0.3)
    assert delta.nonzero()[:, 1].tolist() == [297, 298, 299]
    torch.testing.assert_close(delta[0, 297:], torch.full((3,), 0.1))


@pytest.mark.parametrize("norm", NORMS)
def test_no_inputs(norm):
    threat, x = Threat(norm=norm), torch.zeros(0, 3, 4, 4)
    assert threat.project(x, x).shape == x.shape
    assert threat.contains(x, x).shape == (0,)
    assert threat.ascend(x, x, 0.1).shape == x.shape
    assert threat.random_start(x, Random(0, torch.arange(0))).shape == x.shape


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"norm": "l3"}, "norm must be one of linf, l2, l1; got 'l3'"),
        ({"eps": -0.1}, "eps must be a number of 0 or more, in input units such as 8/255; got -0.1"),
        ({"eps": math.nan}, "eps must be a number of 0 or more, in input units such as 8/255; got nan"),
        ({"eps": "8/255"}, "eps must be a number of 0 or more, in input units such as 8/255; got '8/255'"),
        ({"eps": True}, "eps must be a number of 0 or more, in input units such as 8/255; got True"),
        ({"box": (1.0, 1.0)}, "box must be (low, high) with low < high, or none; got (1.0, 1.0)"),
        ({"box": (0.0, math.nan)}, "box must be (low, high) with low < high, or none; got (0.0, nan)"),
        ({"box": (0.0, 0.5, 1.0)}, "box must be (low, high) with low < high, or none; got (0.0, 0.5, 1.0)"),
    ],
)
def test_what_no_input_could_satisfy_is_refused(fields, line):
    with pytest.raises(UserError) as caught:
        Threat(**fields)
    assert str(caught.value) == line


def test_a_box_given_as_a_list_of_integers_is_a_tuple_of_floats():
    assert Threat(box=[0, 1]) == Threat()


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (0.3, "0.3"), (0.2, "0.2"), (0.0, "0"), (0.125, "0.125"), (0.0313, "0.0313"), (math.inf, "∞")],
)
def test_a_budget_is_told_as_people_write_it(eps, text):
    assert budget_text(eps) == text


@given(st.integers(min_value=1, max_value=255))
def test_a_budget_reads_back(levels):
    shown = budget_text(levels / 255)
    top, _, bottom = shown.partition("/")
    assert float(top) / float(bottom or 1) == pytest.approx(levels / 255, rel=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_budgets_of_single_inputs_are_the_threats_of_those_budgets(norm, dtype):
    """Row by row: the same projection, start and step as in a threat whose eps is that row's share."""
    scale = torch.tensor([0.0, 0.3, 0.5, 1.0, 1.7, 1e-6])
    rows = RowThreat(norm=norm, eps=0.4, scale=scale)
    x, far = draw(0, dtype=dtype).sigmoid(), draw(1, dtype=dtype)
    start, ids = rows.random_start(x, Random(3, torch.arange(6))), torch.arange(6)
    moved, projected = rows.ascend(x, far, 0.1), rows.project(far, x)
    assert rows.contains(projected, x).all()
    assert rows.contains(start, x).all()
    assert torch.equal(rows.contains(far, x), rows.distance(far, x) <= 0.4 * scale.double())
    for row, share in enumerate(scale.tolist()):
        one, part = Threat(norm=norm, eps=0.4 * share), slice(row, row + 1)
        torch.testing.assert_close(projected[part], one.project(far[part], x[part]), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(rows.projector(x)(far)[part], projected[part], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(moved[part], one.ascend(x[part], far[part], 0.1 * share), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(
            start[part], one.random_start(x[part], Random(3, ids[part])), rtol=1e-5, atol=1e-7 if share else 0
        )


def test_budgets_of_single_inputs_need_a_finite_eps():
    with pytest.raises(UserError, match="finite"):
        RowThreat(eps=math.inf, scale=torch.ones(2))


def test_rows_of_a_batch_keep_their_budgets():
    x, places = torch.rand(3, 2), torch.tensor([2, 0, 0])
    threat = Threat(eps=0.4, box=None)
    rows = RowThreat.of(threat, torch.tensor([0.25, 0.5, 1.0]))
    assert threat.of_rows(places) is threat
    torch.testing.assert_close(rows.of_rows(places).budgets(x[places]), torch.tensor([0.4, 0.1, 0.1]))
