"""The neural tangent kernel of an infinitely wide convolutional ReLU network, in closed form."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from buttress.errors import UserError
from buttress.float64 import above_zero

_AT_ONCE = 1 << 17  # pairs of pixels computed together: a MB for each intermediate value, which caches still hold

# Nearer to 1 than this, the cosine of two inputs counts as 1: arccos has no finite slope there, and would turn the last
# digit of a cosine into the eighth of an angle.
_EDGE = 1e-12


def angle_of(cosine: Tensor) -> Tensor:
    """The arccos of cosines, in radians; constant within 1e-12 of its ends, where its slope is taken to be 0."""
    edge = cosine.abs() >= 1 - _EDGE
    ends = (1 - cosine.detach().sign()) * math.pi / 2
    return torch.where(edge, ends, cosine.masked_fill(edge, 0.0).acos())


def conv_ntk(a: Tensor, b: Tensor, depth: int = 2, weight_variance: float = 2.0, bias_variance: float = 0.01) -> Tensor:
    """The convolutional neural tangent kernel with a linear readout of all pixels.

    Arora et al., NeurIPS 2019, section 4 (their vanilla CNTK). The network has ``depth`` 3x3 convolutions, padded with
    zeros, each unit sum(w v) sqrt(weight_variance / (9 channels)) + sqrt(bias_variance) b with standard normal w and b
    and a ReLU behind it, and a linear output of the same form over all channels and pixels. Without biases and with a
    weight_variance of 2 it is theirs up to a constant factor; they have no biases. A readout by global average pooling
    is not offered: it needs every pair of pixels, this one only those at the same place.

    The slope where two patches point the same way is that of `buttress.models.blocks.kernel_regression.ntk`.

    Cost: N M H W pairs of pixels for each convolution. Where there are many in all, rows are computed in
    groups, and again for gradients, so that memory does not grow with N.

    Args:
        a: (N, C, H, W) images.
        b: (M, C, H, W) images.
        depth: convolutions; 0 gives the linear kernel.
        weight_variance: 2 keeps the size of what passes through a ReLU, away from the edge.
        bias_variance: 0 leaves the biases out.

    Returns:
        (N, M) float64.

    Raises:
        UserError: for inputs that are no images, or images of different shapes.
    """
    if a.dim() != 4 or a.shape[1:] != b.shape[1:]:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise UserError(f"the convolutional kernel compares images (N, C, H, W) of one shape; got {shapes}")
    rows, columns = a.double(), b.double()
    each = max(1, _AT_ONCE // max(1, len(columns) * math.prod(columns.shape[2:])))
    settings = (depth, weight_variance, bias_variance)
    if len(rows) <= each:
        return _block(rows, columns, *settings)
    parts, saving = [], torch.is_grad_enabled() and (rows.requires_grad or columns.requires_grad)
    for part in torch.split(rows, each):
        arguments = (part, columns, *settings)
        if saving:
            parts.append(checkpoint(_block, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_block(*arguments))
    return torch.cat(parts)


def _block(a: Tensor, b: Tensor, depth: int, weight: float, bias: float) -> Tensor:
    """The kernel of a group of rows with all columns."""
    covariance = sum((a[:, None, c] * b[:, c] for c in range(a.shape[1])), a.new_zeros(())) / a.shape[1]
    row_variance, column_variance = a.square().mean(1), b.square().mean(1)
    tangent = torch.zeros_like(covariance)
    for layer in range(depth):
        covariance = weight * _patches(covariance) + bias
        tangent = covariance + weight * _patches(tangent) if layer else covariance
        row_variance, column_variance = (weight * _patches(v) + bias for v in (row_variance, column_variance))
        size = above_zero(row_variance[:, None] * column_variance).sqrt()
        angle = angle_of(covariance / size)
        slope = (math.pi - angle) / (2 * math.pi)  # the kernel of order 0
        # size * cos(angle) is written as the covariance, so that its slope does not pass through the angle.
        covariance = size * angle.sin() / (2 * math.pi) + slope * covariance
        tangent = slope * tangent
        row_variance, column_variance = row_variance / 2, column_variance / 2
    return weight * (covariance + tangent).mean((2, 3)) + bias


def _patches(values: Tensor) -> Tensor:
    """(..., H, W) sums over the 3x3 places around each, zeros outside, divided by 9."""
    wide = F.pad(values, (1, 1, 1, 1))
    wide = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    return (wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]) / 9
