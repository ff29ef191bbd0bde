"""How good predicted probabilities are: proper scores, calibration by bins, and detection by a score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.validation import whole


def negative_log_likelihood(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) float64, in nats, of logits (N, C) and classes (N,)."""
    return F.cross_entropy(logits.double(), y.long(), reduction="none")


def brier(logits: Tensor, y: Tensor) -> float:
    """The mean squared distance of the probabilities from the truth, over all classes: from 0 to 2 (Brier, 1950).

    NaN where an output is not finite, which scikit-learn refuses.
    """
    from sklearn.metrics import brier_score_loss

    p = logits.double().softmax(1).numpy(force=True)
    if not np.isfinite(p).all():
        return math.nan
    return float(brier_score_loss(y.numpy(force=True), p, labels=range(p.shape[1]), scale_by_half=False))


def entropy(logits: Tensor) -> Tensor:
    """(N,) of the probabilities, in nats."""
    p = logits.double().softmax(1)
    return -(p * logits.double().log_softmax(1)).sum(1)


def reliability(confidence: Tensor, correct: Tensor, bins: int) -> list[dict[str, Any]]:
    """Confidence and accuracy in bins of equal width (Guo et al., ICML 2017).

    By hand: scikit-learn's ``calibration_curve`` leaves empty bins out and has no counts.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        bins: of which each has its upper end but not its lower one; a confidence of 0 is in the first.

    Returns:
        By bin, in order: its ends ``from`` and ``to``, the ``inputs`` in it, and their mean ``confidence`` and
        ``accuracy``, None in an empty one.

    Raises:
        UserError: for less than one bin.
    """
    whole("bins", bins)
    confidence, hits = confidence.double().cpu(), correct.double().cpu()
    bin_of = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    count = torch.bincount(bin_of, minlength=bins)
    mean_confidence, mean_accuracy = (
        torch.bincount(bin_of, weights=value, minlength=bins) / count for value in (confidence, hits)
    )
    return [
        {
            "from": k / bins,
            "to": (k + 1) / bins,
            "inputs": n,
            "confidence": float(mean_confidence[k]) if n else None,
            "accuracy": float(mean_accuracy[k]) if n else None,
        }
        for k, n in enumerate(count.tolist())
    ]


def calibration_error(table: list[dict[str, Any]]) -> float:
    """The expected calibration error of a `reliability` table: |confidence - accuracy|, by the inputs of each bin."""
    total: int = sum(row["inputs"] for row in table)
    gaps = (row["inputs"] * abs(row["confidence"] - row["accuracy"]) for row in table if row["inputs"])
    return float(sum(gaps)) / total


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The share of pairs in which the score outside is the higher one, ties counting half: the area under the ROC.

    From the U statistic of Mann and Whitney (1947), which has ranks for infinite scores as well; scikit-learn's
    ``roc_auc_score`` refuses those.

    Args:
        inside: (N,) scores of inputs that should have low ones.
        outside: (M,) of those that should have high ones.
    """
    from scipy.stats import mannwhitneyu

    samples = [scores.double().numpy(force=True) for scores in (outside, inside)]
    return float(mannwhitneyu(*samples, method="asymptotic").statistic) / (len(inside) * len(outside))
