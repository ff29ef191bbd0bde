"""What attacks without gradients share: checks of settings, starting points by chance, the best point, bisection."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from buttress.random import Random
from buttress.threat import Threat, per_row

_KINDS = 3  # of starting points, taken in turn


def starting_points(x: Tensor, threat: Threat, random: Random, trial: int) -> Tensor:
    """(N, ...) points in the box, far from ``x``, that may fool the model: by chance, and of three kinds in turn.

    The kinds are noise uniform in the box, noise of the box's ends only, and one flat colour, because a model tends to
    take all noise of one kind for one class. Where an end is infinite they are drawn within ``eps`` of the input, or
    within a width (see `Threat.widths`) without an eps, later ones within 2, 4, 8 ... times that.

    Args:
        x: (N, ...) inputs.
        threat: gives the box, or the distance.
        random: this trial's own draws.
        trial: 0 for the first.
    """
    low, high = threat.limits(x)
    reach = (threat.eps if math.isfinite(threat.eps) else threat.widths(x)) * 2.0 ** min(trial // _KINDS, 20)
    low, high = low.where(low.isfinite(), x - reach), high.where(high.isfinite(), x + reach)
    shape = x.shape[1:]
    if trial % _KINDS == 0:
        place = random.uniform(shape, x.dtype)
    elif trial % _KINDS == 1:
        place = (random.sign(shape, x.dtype) + 1) / 2
    else:
        channels = shape[:1] if x.dim() > 2 else ()
        place = random.uniform((*channels, *[1] * (len(shape) - len(channels))), x.dtype).expand_as(x)
    return threat.clip(low + (high - low) * place, x)


class Best:
    """The best point asked about so far, for each input: one that fools the model, and of those the highest loss.

    Attributes:
        point: (N, ...) that point.
    """

    def __init__(self, point: Tensor, loss: Tensor, success: Tensor) -> None:
        """What is known at first: (N, ...) points, their (N,) losses, and (N,) bool, whether they fool the model."""
        self.point, self.loss, self.success = point, loss, success.clone()

    def offer(self, point: Tensor, loss: Tensor, success: Tensor) -> None:
        """Take over what is better; the arguments are those of the start."""
        better = (success & ~self.success) | ((success == self.success) & (loss > self.loss))
        self.point = torch.where(per_row(better, point), point, self.point)
        self.loss, self.success = torch.where(better, loss, self.loss), self.success | success


class Line:
    """Bisection between each input and an adversarial point, for some rows at a time.

    In l2 (and l1) the points between are on the straight line; in linf they are the nearest to the far end within a
    radius, as in HopSkipJump (Chen et al., 2020).

    Attributes:
        point: (N, ...) the nearest point to the input known to fool the model.
    """

    def __init__(self, x: Tensor, threat: Threat) -> None:
        """Nothing to bisect yet: both ends are at ``x``, (N, ...)."""
        self.x, self.threat, self.point, self.far = x, threat, x.clone(), x.clone()
        self.low = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        self.high = torch.ones_like(self.low)

    def aim(self, rows: Tensor, far: Tensor) -> None:
        """Begin anew where ``rows`` (N,) is true, towards ``far`` (N, ...), which fools the model."""
        self.far = torch.where(per_row(rows, far), far, self.far)
        self.point = torch.where(per_row(rows, far), far, self.point)
        self.low, self.high = torch.where(rows, 0, self.low), torch.where(rows, 1, self.high)

    def middle(self) -> Tensor:
        """(N, ...) the points half-way, to be asked about."""
        share, delta = (self.low + self.high) / 2, self.far - self.x
        if self.threat.norm == "linf":
            radius = per_row(share * self.threat.size(delta), delta) * self.threat.shared(torch.ones_like(delta))
            return self.x + delta.clamp(-radius, radius)
        return self.x + per_row(share, delta) * delta

    def learn(self, rows: Tensor, points: Tensor, success: Tensor) -> None:
        """Halve the interval where ``rows`` (N,) is true: ``points`` were `middle`, ``success`` (N,) the answer."""
        middle, nearer = (self.low + self.high) / 2, rows & success
        self.point = torch.where(per_row(nearer, points), points, self.point)
        self.high = torch.where(nearer, middle, self.high)
        self.low = torch.where(rows & ~success, middle, self.low)
