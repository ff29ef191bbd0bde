"""Confident learning: the example by hand, and planted noise on separable blobs."""

import pytest
import torch

from buttress.audits.inputs.labels import label_errors


def test_by_hand():
    """Averages: class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, class 1 (0.9 + 0.55) / 2 = 0.725; the third label looks wrong.

    The last reaches no average and is not counted. Joint: row 0 has 2 at 0 and 1 at 1, row 1 has 1 at 1 of two inputs,
    which calibrates to (2, 1) and (0, 2): 1 of 5 is wrong.
    """
    first = torch.tensor([0.9, 0.8, 0.1, 0.1, 0.45])
    errors = label_errors(torch.stack([first, 1 - first], 1), torch.tensor([0, 0, 0, 1, 1]))
    assert errors.rows.tolist() == [2]
    assert errors.suggested.tolist() == [1]
    assert errors.rate == pytest.approx(1 / 5)


def test_planted_noise_is_found():
    """Three blobs apart by five deviations, a tenth of 600 labels moved: predictions of the true model find them."""
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    truth = torch.arange(600) % 3
    x = centres[truth] + torch.randn(600, 2, generator=random)
    moved = torch.randperm(600, generator=random)[:60]
    y = truth.clone()
    y[moved] = (y[moved] + torch.randint(1, 3, (60,), generator=random)) % 3
    errors = label_errors((-(torch.cdist(x, centres) ** 2) / 2).softmax(1), y)
    found, planted = set(errors.rows.tolist()), set(moved.tolist())
    assert len(found & planted) / len(planted) > 0.95
    assert len(found & planted) / len(found) > 0.95
    correct = errors.suggested == truth[errors.rows]
    assert float(correct.double().mean()) > 0.9
    assert errors.rate == pytest.approx(0.1, abs=0.02)


def test_a_class_without_inputs_is_never_suggested():
    p = torch.tensor([[0.1, 0.2, 0.7], [0.9, 0.05, 0.05], [0.1, 0.85, 0.05]])
    errors = label_errors(p, torch.tensor([0, 0, 1]))
    assert 2 not in errors.suggested.tolist()


def test_labels_that_are_all_as_predicted():
    errors = label_errors(torch.eye(3).repeat(4, 1), torch.arange(12) % 3)
    assert (len(errors.rows), errors.rate) == (0, 0.0)
