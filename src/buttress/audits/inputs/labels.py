"""Labels that look wrong, by what a network says of inputs that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelErrors:
    """Labels that look wrong.

    Attributes:
        rows: (K,) the inputs, those whose label is least likely first.
        suggested: (K,) the classes that they are confidently counted to instead.
        rate: the share of all labels that is estimated to be wrong, from the calibrated joint distribution.
    """

    rows: Tensor
    suggested: Tensor
    rate: float


def label_errors(probabilities: Tensor, y: Tensor) -> LabelErrors:
    """Confident learning (Northcutt, Jiang and Chuang, JAIR 2021): the off-diagonal of the confident joint.

    An input is counted to the likeliest of the classes whose probability is at least as high as it is on average over
    the inputs with that label (equation 2 of the paper); where that is another class than its label, the label looks
    wrong. They are ordered by the probability of the label less that of the likeliest other class. A class that no
    input has as its label has no average, so nothing is counted to it.

    Args:
        probabilities: (N, C) of inputs that the network was not trained on: on its own training data it repeats what it
            was told.
        y: (N,) their labels.
    """
    p, y = probabilities.double(), y.long()
    classes = p.shape[1]
    members = torch.zeros_like(p).scatter(1, y[:, None], 1.0)
    counts = members.sum(0)
    average = torch.where(counts > 0, (members * p).sum(0) / counts.clamp(min=1), torch.inf)
    confident = p.masked_fill(p < average, -torch.inf)
    counted, to = confident.max(1)
    there = counted.isfinite()
    joint = torch.zeros(classes * classes, dtype=torch.float64, device=p.device)
    joint.index_add_(0, y[there] * classes + to[there], torch.ones_like(p[there, 0]))
    wrong = (there & (to != y)).nonzero().squeeze(1)
    own = p.gather(1, y[:, None]).squeeze(1)
    lead = own - p.scatter(1, y[:, None], -torch.inf).amax(1)
    wrong = wrong[lead[wrong].argsort(stable=True)]
    return LabelErrors(wrong, to[wrong], _rate(joint.view(classes, classes), counts))


def _rate(joint: Tensor, counts: Tensor) -> float:
    """The mass off the diagonal, with each row scaled to as many inputs as have the label (equation 3)."""
    rows = joint.sum(1)
    share = torch.where(rows > 0, joint.diagonal() / rows.clamp(min=1), 1.0)
    return float(1 - (share * counts).sum() / counts.sum())
