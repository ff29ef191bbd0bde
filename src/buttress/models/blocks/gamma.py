"""Gamma distributions with gradients for their parameters: divergence, draws and quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress.float64 import above_zero

_NEWTON = 100  # iterations at most; about 6 are made
_ENOUGH = 1e-13  # change of log x at which they end
_NEAR = 1e-4  # step of differences, in units of the distribution's scale


@dataclass(frozen=True)
class Gamma:
    """Gamma distributions of density proportional to t^(shape - 1) exp(-rate t).

    Attributes:
        shape: (...) float64, above 0.
        rate: (...) likewise, in 1 / unit of t.
    """

    shape: Tensor
    rate: Tensor

    @property
    def mean(self) -> Tensor:
        """(...) the means."""
        return self.shape / self.rate

    @property
    def std(self) -> Tensor:
        """(...) the standard deviations."""
        return self.shape.sqrt() / self.rate

    def kl(self, prior: Gamma) -> Tensor:
        """(...) the Kullback-Leibler divergence from ``prior`` to these, in nats."""
        a, b, a0, b0 = self.shape, self.rate, prior.shape, prior.rate
        shapes = (a - a0) * torch.digamma(a) - torch.lgamma(a) + torch.lgamma(a0)
        return shapes + a0 * (b.log() - b0.log()) + a * (b0 - b) / b

    def density(self, t: Tensor) -> Tensor:
        """(...) the density at ``t`` > 0."""
        a, b = self.shape, self.rate
        return (a * b.log() + (a - 1) * t.log() - b * t - torch.lgamma(a)).exp()

    def draw(self, count: int) -> Tensor:
        """(count, ...) draws from torch's global random state."""
        # Not validated: where the shape is no number the draw is none either, which is told where losses are checked.
        sample = torch.distributions.Gamma(self.shape.detach(), 1.0, validate_args=False).sample((count,))
        return attached(self.shape.expand_as(sample), above_zero(sample)) / self.rate

    def quantiles(self, count: int) -> Tensor:
        """(count, ...) the quantiles at (k - 1/2) / count for k = 1 .. count: nodes of equal weight."""
        levels = (torch.arange(count, dtype=self.shape.dtype, device=self.shape.device) + 0.5) / count
        levels = levels.view(-1, *[1] * self.shape.dim())
        shape = self.shape.expand(count, *self.shape.shape)
        return attached(shape, quantile(shape.detach(), levels)) / self.rate


def quantile(shape: Tensor, level: Tensor) -> Tensor:
    """Where the standard Gamma distribution function is ``level``, without gradients.

    Newton's method for log F as a function of log x. That function is concave, since the logarithm of a Gamma variable
    has a log-concave density, so the method converges from everywhere.

    Args:
        shape: float64, from 0.01 on.
        level: in (0, 1), of a shape that fits.
    """
    s, target = shape.log() + torch.zeros_like(level), level.log()
    for _ in range(_NEWTON):
        below = torch.special.gammainc(shape, s.exp())
        slope = (shape * s - s.exp() - torch.lgamma(shape)).exp() / below
        change = (target - below.log()) / slope
        s = s + change
        if bool((change.abs() <= _ENOUGH * (1 + s.abs())).all()):
            break
    return s.exp()


def attached(shape: Tensor, x: Tensor) -> Tensor:
    """``x``, with the gradient for the shape that it has as a draw at a fixed level of the distribution function.

    Implicit reparameterisation (Figurnov, Mohamed, Mnih, NeurIPS 2018): dx/dshape = -(dF/dshape) / density. The
    derivative of F is a central difference in float64, which is good to about 8 digits; the result can be
    differentiated twice, unlike that of ``torch.distributions``.

    Args:
        shape: float64.
        x: of the same shape, drawn from the standard Gamma distribution, or quantiles of it.
    """
    out: Tensor = _Attached.apply(shape, x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shape: Tensor, x: Tensor) -> Tensor:
        out = x.clone()
        ctx.save_for_backward(shape, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return grads[0] * _Slope.apply(*ctx.saved_tensors), None  # type: ignore[no-untyped-call]  # torch leaves it untyped


class _Slope(torch.autograd.Function):
    """dx/dshape, and its own derivatives by differences."""

    @staticmethod
    def forward(ctx: Any, shape: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(shape, x)
        return _slope(shape, x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        shape, x = ctx.saved_tensors
        h, k = 30 * _NEAR * _scale(shape), 30 * _NEAR * x
        by_shape = (_slope(shape + h, x) - _slope(shape - h, x)) / (2 * h)
        by_x = (_slope(shape, x + k) - _slope(shape, x - k)) / (2 * k)
        return grads[0] * by_shape, grads[0] * by_x


def _slope(shape: Tensor, x: Tensor) -> Tensor:
    h = _NEAR * _scale(shape)
    rise = (torch.special.gammainc(shape + h, x) - torch.special.gammainc(shape - h, x)) / (2 * h)
    density: Tensor = ((shape - 1) * x.log() - x - torch.lgamma(shape)).exp()
    slope: Tensor = -rise / density
    return slope


def _scale(shape: Tensor) -> Tensor:
    """Over which a standard Gamma distribution changes with its shape."""
    return torch.minimum(shape, shape.sqrt())
