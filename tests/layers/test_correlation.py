"""Correlations against scipy, torch and the formulas by hand."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from buttress.layers.correlation import pearson, pearson_by_row, spearman

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def test_rank_correlation_is_spearmans():
    random = torch.Generator().manual_seed(0)
    for length in (2, 3, 10):
        a = torch.randint(0, 9, (length,), generator=random) + torch.arange(length) / 100
        b = torch.randint(0, 3, (length,), generator=random).float()
        b[0] = 5
        assert spearman(a, b) == pytest.approx(float(spearmanr(a, b).statistic))
    assert spearman(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([3.0, math.inf, math.nan])) == pytest.approx(1.0)
    assert math.isnan(spearman(torch.ones(3), torch.arange(3.0)))


def test_ranks_by_hand_with_ties_and_infinite_values():
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3.5, 3.5: the covariance is 3.75, each sum of squares 4.5."""
    a, b = torch.tensor([-math.inf, 2.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, math.inf, math.inf])
    assert spearman(a, b) == pytest.approx(3.75 / 4.5, abs=1e-12)
    assert math.isnan(spearman(a[:1], b[:1]))
    assert math.isnan(spearman(torch.tensor([1.0, math.nan]), torch.tensor([math.nan, 1.0])))


def test_rows_have_pearsons():
    one, other = torch.rand(2, 4, 5, 4, generator=torch.Generator().manual_seed(3)).double()
    expected = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(pearson_by_row(one, other), torch.stack(expected), **CLOSE)
    torch.testing.assert_close(pearson_by_row(one, 2 - 3 * one), -torch.ones(4).double(), **CLOSE)
    assert pearson_by_row(one, torch.ones_like(one)).isnan().all()


def test_what_has_no_correlation_is_nan_without_a_warning():
    line = torch.arange(4.0).double()
    assert pearson(line, 1 - line) == pytest.approx(-1)
    for side in (torch.ones(4).double(), line.log(), line.where(line > 1, torch.nan)):
        assert math.isnan(pearson(line, side))
    assert math.isnan(pearson(line[:1], line[:1]))
    assert pearson(1e9 + 1e-6 * line, line) == pytest.approx(1, abs=0.1)
