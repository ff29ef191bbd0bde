"""How good predicted probabilities are: proper scores, calibration by bins, and telling inputs apart by a score."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.validation import whole


def negative_log_likelihood(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) float64, in nats, of logits (N, C) and classes (N,)."""
    return F.cross_entropy(logits.double(), y.long(), reduction="none")


def brier(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) the squared distance of the probabilities from the truth, over all classes: from 0 to 2 (Brier, 1950)."""
    p = logits.double().softmax(1)
    return (p - F.one_hot(y.long(), logits.shape[1])).square().sum(1)


def entropy(logits: Tensor) -> Tensor:
    """(N,) of the probabilities, in nats."""
    p = logits.double().softmax(1)
    return -(p * logits.double().log_softmax(1)).sum(1)


def reliability(confidence: Tensor, right: Tensor, bins: int) -> list[dict[str, Any]]:
    """Confidence and accuracy in bins of equal width (Guo et al., ICML 2017).

    Args:
        confidence: (N,) in [0, 1].
        right: (N,) bool.
        bins: of which each has its upper end but not its lower one; a confidence of 0 is in the first.

    Returns:
        By bin, in order: its ends ``from`` and ``to``, the ``inputs`` in it, and their mean ``confidence`` and
        ``accuracy``, None in an empty one.

    Raises:
        UserError: for less than one bin.
    """
    whole("bins", bins)
    confidence, hit = confidence.double().cpu(), right.double().cpu()
    place = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    sure, good = (torch.bincount(place, weights=value, minlength=bins) / count for value in (confidence, hit))
    return [
        {
            "from": k / bins,
            "to": (k + 1) / bins,
            "inputs": n,
            "confidence": float(sure[k]) if n else None,
            "accuracy": float(good[k]) if n else None,
        }
        for k, n in enumerate(count.tolist())
    ]


def calibration_error(table: list[dict[str, Any]]) -> float:
    """The expected calibration error of a `reliability` table: |confidence - accuracy|, by the inputs of each bin."""
    total: int = sum(row["inputs"] for row in table)
    missed = (row["inputs"] * abs(row["confidence"] - row["accuracy"]) for row in table if row["inputs"])
    return float(sum(missed)) / total


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The share of pairs in which the score outside is the higher one, ties counting half: the area under the ROC.

    Args:
        inside: (N,) scores of inputs that should have low ones.
        outside: (M,) of those that should have high ones.
    """
    inside, outside = inside.double().cpu().sort().values, outside.double().cpu()
    below, upto = (torch.searchsorted(inside, outside, right=right) for right in (False, True))
    share = (below + upto).double().mean() / (2 * len(inside))
    return float(share)
