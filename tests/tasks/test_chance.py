"""What a guess gets is what the best constant answer gets, tried one by one."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress import tasks
from buttress.tasks.chance import best_class, best_set, best_values


def share_right(task, y, answer):
    """The share of right outputs of a network that always returns ``answer``."""
    return float(task.score(answer.expand(len(y), -1), y).double().mean())


@pytest.mark.parametrize(
    ("counts", "classes", "expected"),
    [([10, 10], 2, 0.5), ([19, 1], 2, 0.95), ([5] * 10, 10, 0.1), ([7], 4, 0.25), ([3, 3, 6], 100, 0.5)],
)
def test_of_classes(counts, classes, expected):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert tasks.classification.chance(y, classes) == pytest.approx(expected)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 4))
def test_of_classes_in_an_order(truth, tolerance):
    y, task = torch.tensor(truth), tasks.Ordinal(tolerance=tolerance)
    best = max(share_right(task, y, answer) for answer in torch.eye(6))
    expected = best if best < 1 else min(1, (2 * tolerance + 1) / 6)  # of six as frequent ones
    assert task.chance(y, 6) == best_class(y, 6, tolerance) == pytest.approx(expected)


@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=2), min_size=1, max_size=12), st.booleans())
def test_of_sets_of_labels(truth, every):
    y, task = torch.tensor(truth), tasks.MultiLabel(wrong="any" if every else "all")
    sets = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)))
    best = max(share_right(task, y, answer) for answer in sets)
    expected = best if best < 1 else 1 / 4 if every else 3 / 4
    assert task.chance(y, 2) == best_set(y, every) == pytest.approx(expected)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(0, 8))
def test_of_one_value_no_answer_is_better(truth, tolerance):
    y, task = torch.tensor(truth).double(), tasks.Regression(tolerance=tolerance)
    best = max(share_right(task, y, torch.tensor([answer / 2])) for answer in range(41))
    assert task.chance(y, 1) == best_values(y[:, None], tolerance) == pytest.approx(best)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9), st.integers(0, 4))
def test_of_several_values_it_is_reached_and_no_truth_is_better(truth, tolerance):
    y, task = torch.tensor(truth).double(), tasks.Regression(tolerance=tolerance)
    grid = [torch.tensor([a / 2, b / 2]) for a in range(19) for b in range(19)]
    found = task.chance(y, 2)
    assert max(share_right(task, y, answer) for answer in y) <= found + 1e-9
    assert found <= max(share_right(task, y, answer) for answer in grid) + 1e-9


def test_what_knows_none():
    assert tasks.Denoising().chance(torch.rand(4, 1, 2, 2), 4) is None
