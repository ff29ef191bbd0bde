"""The nearest face of a linearised decision region, in the memory of a single gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from buttress.engine.ledger import Rows
from buttress.engine.passes import Pull

# How far a face is from the inputs at these rows, (M,), by its value (M,) and its gradient (M, ...).
Distance = Callable[[Rows, Tensor, Tensor], Tensor]


def nearest(
    points: Tensor,
    output: Tensor,
    pulls: Sequence[Pull],
    y: Tensor,
    classes: Tensor,
    share: float,
    distance: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """(M,) float64 value and (M, ...) gradient of the nearest of the faces ``share`` z_k - z_y = 0.

    The faces are looked at in turn, so that two gradients of a batch are held at a time, however many classes there
    are. Of faces equally far the first is taken; where all are infinitely far both answers are 0.

    Args:
        points: (M, ...) where.
        output: (M, C) logits z there.
        pulls: ways back, whose mean is the gradient.
        y: (M,) the truth.
        classes: (M, K) the rivals k.
        share: of a rival's logit.
        distance: (value, gradient) -> (M,), how far a face is.
    """
    logits, columns = output.double(), classes.unbind(1)
    own = logits.gather(1, y[:, None]).squeeze(1)
    value, grad, least = torch.zeros_like(own), torch.zeros_like(points), torch.full_like(own, torch.inf)
    for k, column in enumerate(columns):
        slope = torch.zeros_like(output).scatter_(1, y[:, None], -1.0)
        slope.scatter_add_(1, column[:, None], torch.full_like(slope[:, :1], share))
        each = [pull(slope, k + 1 < len(columns)) for pull in pulls]
        there = each[0] if len(each) == 1 else torch.stack(each).mean(0)
        height = share * logits.gather(1, column[:, None]).squeeze(1) - own
        far = distance(height, there)
        nearer = far < least
        value, least = torch.where(nearer, height, value), torch.where(nearer, far, least)
        grad[nearer] = there[nearer]
    return value, grad
