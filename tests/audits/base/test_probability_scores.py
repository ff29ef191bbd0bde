"""Scores of probabilities by hand, and against scikit-learn."""

import math

import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from buttress.audits.base import probability_scores as scores
from buttress.errors import UserError


def test_a_hand_made_calibration_error():
    confidence = torch.tensor([0.55, 0.6, 0.95, 1.0, 0.5], dtype=torch.float64)
    right = torch.tensor([True, False, True, True, False])
    table = scores.reliability(confidence, right, 5)
    assert [row["inputs"] for row in table] == [0, 0, 3, 0, 2]  # 0.6 still in the third of (0.4, 0.6]
    assert table[2]["accuracy"] == pytest.approx(1 / 3)
    assert table[2]["confidence"] == pytest.approx(0.55)
    assert table[0]["accuracy"] is None
    assert scores.calibration_error(table) == pytest.approx(3 / 5 * (0.55 - 1 / 3) + 2 / 5 * (1 - 0.975))


def test_ends_of_the_range_have_a_bin():
    table = scores.reliability(torch.tensor([0.0, 1.0]), torch.tensor([False, True]), 15)
    assert (table[0]["inputs"], table[14]["inputs"]) == (1, 1)
    assert scores.calibration_error(table) == 0
    with pytest.raises(UserError, match="bins must be a whole number of 1 or more"):
        scores.reliability(torch.ones(1), torch.ones(1).bool(), 0)


def test_a_calibrated_predictor_has_a_small_error_and_a_bold_one_does_not():
    random = torch.Generator().manual_seed(1)
    confidence = 0.5 + 0.5 * torch.rand(20_000, generator=random)
    right = torch.rand(20_000, generator=random) < confidence
    assert scores.calibration_error(scores.reliability(confidence, right, 15)) < 0.4 * math.sqrt(15 / 20_000)
    bold = torch.ones(20_000)
    assert scores.calibration_error(scores.reliability(bold, right, 15)) == pytest.approx(0.25, abs=0.01)


def test_a_constant_predictor():
    logits, y = torch.zeros(10, 4), torch.arange(10) % 4
    assert torch.allclose(scores.negative_log_likelihood(logits, y), torch.full((10,), math.log(4)).double())
    assert torch.allclose(scores.entropy(logits), torch.full((10,), math.log(4)).double())
    assert scores.brier(logits, y) == pytest.approx(0.75)


def test_sure_answers_are_finite():
    logits, y = torch.tensor([[200.0, 0.0], [0.0, 200.0]]), torch.tensor([0, 0])
    assert scores.negative_log_likelihood(logits, y).tolist() == pytest.approx([0, 200])
    assert [scores.brier(logits[k : k + 1], y[k : k + 1]) for k in (0, 1)] == pytest.approx([0, 2])
    assert torch.allclose(scores.entropy(logits), torch.zeros(2).double())


def test_scores_of_scikit_learn():
    random = torch.Generator().manual_seed(2)
    logits, y = torch.randn(50, 2, generator=random), torch.randint(2, (50,), generator=random)
    p = logits.double().softmax(1)
    assert scores.negative_log_likelihood(logits, y).mean().item() == pytest.approx(log_loss(y, p))
    assert scores.brier(logits, y) == pytest.approx(2 * brier_score_loss(y, p[:, 1]))


def test_the_area_under_the_curve_with_ties_is_scikit_learns():
    random = torch.Generator().manual_seed(3)
    inside, outside = torch.randint(6, (40,), generator=random), torch.randint(2, 9, (25,), generator=random)
    truth = torch.cat([torch.zeros(40), torch.ones(25)])
    assert scores.auroc(inside, outside) == pytest.approx(roc_auc_score(truth, torch.cat([inside, outside])))
    assert scores.auroc(torch.zeros(3), torch.ones(2)) == 1
    assert scores.auroc(torch.zeros(3), torch.zeros(2)) == 0.5


def test_infinite_scores_have_an_area():
    """Of four pairs the outside one is higher in two, and one is a tie."""
    inside, outside = torch.tensor([0.0, math.inf]), torch.tensor([1.0, math.inf])
    assert scores.auroc(inside, outside) == 2.5 / 4


def test_the_score_of_an_output_that_is_not_finite_is_nan():
    assert math.isnan(scores.brier(torch.tensor([[math.nan, 0.0]]), torch.tensor([0])))
