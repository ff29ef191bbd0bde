"""Classes in an order: near ones are right as well."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress import losses
from buttress.errors import UserError
from buttress.tasks import Ordinal, classification


def random_case(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 5, generator=generator, dtype=torch.float64), torch.randint(5, (8,), generator=generator)


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_margin_and_entropy_are_of_the_classes_within_the_tolerance(seed, tolerance):
    z, y = random_case(seed)
    task = Ordinal(tolerance=tolerance)
    far = (z.argmax(1) - y).abs() > tolerance
    assert torch.equal(task.is_adversarial(z, y), far)
    assert torch.equal(task.margin(z, y) > 0, far)
    near = (torch.arange(5) - y[:, None]).abs() <= tolerance
    within = (z.softmax(1) * near).sum(1)
    torch.testing.assert_close(task.resolve("cross_entropy").value(z, y), -within.log(), rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10_000))
def test_without_tolerance_it_is_classification(seed):
    z, y = random_case(seed)
    task = Ordinal(tolerance=0)
    assert task.classes
    for name in ("cross_entropy", "margin"):
        for target in (None, y.roll(1)):
            mine, others = (each.resolve(name).value(z, y, target) for each in (task, classification))
            torch.testing.assert_close(mine, others)
    assert torch.equal(task.is_adversarial(z, y), classification.is_adversarial(z, y))


def test_the_slope_survives_saturation():
    z = torch.tensor([[0.0, 2000.0, 0.0, 0.0]])
    value, slope = Ordinal(tolerance=1).resolve("cross_entropy").slope(z, torch.tensor([1]))
    assert value == 0
    assert slope[0, 3] > 0.9 > 0 > slope[0, 1]
    value, slope = Ordinal(tolerance=1).resolve(Ordinal(tolerance=1).loss).slope(z, torch.tensor([1]))
    assert value == -2000
    assert slope.tolist() == [[0.0, -1.0, 0.0, 1.0]]


def test_where_every_class_is_within_the_tolerance_nothing_is_followed():
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    value, slope = Ordinal(tolerance=2).resolve("margin").slope(z, torch.tensor([0, 2, 4]))
    assert value.isfinite().tolist() == [True, False, True]
    assert slope.isfinite().all()


def test_a_tolerance_of_all_classes_is_refused():
    with pytest.raises(UserError, match="tolerance must be below 2, or no class of 3 is wrong; got 2"):
        Ordinal(tolerance=2).check(torch.eye(3) * 3, torch.arange(3))
    with pytest.raises(UserError, match="tolerance must be a whole number"):
        Ordinal(tolerance=-1)


def test_a_target_is_a_class():
    z = torch.eye(4) * 3
    assert Ordinal(tolerance=1).is_adversarial(z, torch.zeros(4).long(), torch.arange(4).roll(1)).sum() == 0
    assert Ordinal(tolerance=1).is_adversarial(z, torch.zeros(4).long(), torch.arange(4)).all()
    toward = losses.margin(z, torch.arange(4))
    assert torch.equal(Ordinal().resolve("margin").value(z, torch.zeros(4).long(), torch.arange(4)), -toward)
