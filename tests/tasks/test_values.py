"""Values: what is wrong, by how much, which way is up, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.attacks import DDN, FGSM, FMN, PGD
from buttress.errors import UserError
from buttress.tasks import Regression
from buttress.threat import Threat

TASK = Regression(tolerance=0.5)


def test_beyond_the_tolerance_is_wrong():
    z, y = torch.tensor([1.0, 1.5, 1.6, torch.nan]), torch.ones(4)
    for truth in (y, y[:, None], y.double(), torch.ones(4, dtype=torch.int64)):
        assert TASK.is_adversarial(TASK.read(z), truth).tolist() == [False, False, True, True]
        assert TASK.score(TASK.read(z), truth).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert TASK.is_adversarial(TASK.read(z), y, torch.full((4,), 2.0)).tolist() == [False, True, True, False]
    several = torch.tensor([[1.0, 1.0], [1.0, 9.0]])
    assert TASK.is_adversarial(several, torch.ones(2, 2)).tolist() == [False, True]


@given(st.integers(0, 10_000))
def test_the_margin_is_positive_exactly_where_it_is_wrong(seed):
    z, y = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(TASK.margin(z, y) > 0, TASK.is_adversarial(z, y))
    assert torch.equal(TASK.resolve("margin").value(z, -y, y) >= 0, TASK.is_adversarial(z, -y, y))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_no_value_is_set_against_that_of_another_input(shape):
    """(N,) and (N, 1) would broadcast to (N, N) without a word."""
    z, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0]).view(shape)
    assert TASK.resolve("mse").value(TASK.read(z), y).tolist() == [0.0, 0.0, 1.0]
    assert TASK.objective(TASK.read(z), y) == pytest.approx(1 / 3)


@pytest.mark.parametrize("loss", [None, "margin"])
def test_fgsm_is_exact_on_a_linear_model(loss):
    """The output moves by eps |w| at most; also where it is the truth itself, and the squared error has no slope."""
    w = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = x @ w + torch.linspace(0, 0.4, 50, dtype=torch.float64)
    for eps in (0.05, 0.2):
        result = FGSM(threat=Threat(eps=eps, box=None), loss=loss)(lambda points: points @ w, x, y, task=TASK)
        furthest = (x @ w - y).abs() + eps * w.abs().sum()
        assert torch.equal(result.success, furthest > 0.5)
        torch.testing.assert_close((result.x_adv @ w - y).abs(), furthest)


@pytest.mark.parametrize("attack", [FMN(steps=200), DDN(steps=200)], ids=["fmn", "ddn"])
def test_the_smallest_perturbation_of_a_linear_model(attack):
    w = torch.tensor([3.0, -4.0])
    x = torch.zeros(4, 2)
    y = torch.tensor([0.0, 0.2, -0.3, 0.1])
    threat = Threat(norm="l2", eps=float("inf"), box=(-10.0, 10.0))
    result = attack.within(threat)(lambda points: points @ w, x, y, task=TASK)
    assert result.success.all()
    torch.testing.assert_close(result.distance, ((0.5 - y.abs()) / 5).double(), rtol=0.05, atol=0)


def test_a_target_is_a_value():
    w = torch.tensor([1.0, 1.0])
    x, target = torch.zeros(2, 2), torch.tensor([2.0, -2.0])
    attack = PGD(threat=Threat(eps=1.2, box=None), steps=50, step_size=0.05)
    result = attack(lambda points: points @ w, x, torch.zeros(2), task=TASK, target=target, search="first")
    assert result.success.all()
    assert ((result.x_adv @ w - target).abs() <= 0.5).all()


@pytest.mark.parametrize(
    ("y", "line"),
    [
        (torch.zeros(2, 3), r"values must be numbers of shape \(3,\); got torch.float32 of shape \(2, 3\)$"),
        (torch.zeros(1, 3), r"values must be numbers of shape \(3,\); got torch.float32 of shape \(1, 3\): use y.T$"),
        (torch.zeros(3, 1, 1), r"got torch.float32 of shape \(3, 1, 1\): use y.flatten\(1\)$"),
        (torch.tensor([True, False, True]), r"got torch.bool of shape \(3,\): use y.float\(\)$"),
        (torch.tensor([0.0, torch.nan, 1.0]), r"values must be finite; 1 of 3 are NaN or infinite$"),
    ],
)
def test_what_are_no_values(y, line):
    with pytest.raises(UserError, match=line):
        TASK.check(torch.zeros(3, 1), y)


def test_other_refusals():
    with pytest.raises(UserError, match="NaN or infinite for 1 of the 2 inputs"):
        TASK.check(torch.tensor([[0.0], [torch.inf]]), torch.zeros(2))
    with pytest.raises(UserError, match=r"must return values .*; it returned shape \(1, 1, 1\)"):
        TASK.read(torch.zeros(1, 1, 1))
    with pytest.raises(UserError, match="tolerance must be"):
        Regression(tolerance=-1.0)
