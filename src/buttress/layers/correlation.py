"""Correlations by scipy: NaN, and no warning, where they are not defined."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two (L,) tensors; NaN for fewer than two values, a constant side, infinity or NaN."""
    from scipy.stats import NearConstantInputWarning, pearsonr

    if _constant(a) or _constant(b) or not bool((a.isfinite() & b.isfinite()).all()):
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearConstantInputWarning)
        return float(pearsonr(a.numpy(force=True), b.numpy(force=True)).statistic)


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two (L,) tensors, ties sharing their mean rank; pairs with a NaN are left out.

    Infinite values have a rank like any other. NaN for fewer than two pairs or a constant side.
    """
    from scipy.stats import spearmanr

    defined = ~(a.isnan() | b.isnan())
    a, b = a[defined], b[defined]
    if _constant(a) or _constant(b):
        return math.nan
    return float(spearmanr(a.numpy(force=True), b.numpy(force=True)).statistic)


def pearson_by_row(a: Tensor, b: Tensor) -> Tensor:
    """(N,) float64 Pearson's correlations of the rows of two (N, ...) tensors, each as `pearson` has it."""
    pairs = zip(a.double().flatten(1), b.double().flatten(1), strict=True)
    return torch.tensor([pearson(one, other) for one, other in pairs], dtype=torch.float64)


def _constant(values: Tensor) -> bool:
    return len(values) < 2 or bool((values == values[0]).all())
