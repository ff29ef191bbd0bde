"""The angle between two inputs, from which the tangent kernels of ReLU networks are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Nearer to 1 than this, the cosine of two inputs counts as 1: arccos has no finite slope there, and would turn the last
# digit of a cosine into the eighth of an angle.
_EDGE = 1e-12


def angle_of(cosine: Tensor) -> Tensor:
    """The arccos of cosines, in radians; constant within 1e-12 of its ends, where its slope is taken to be 0."""
    edge = cosine.abs() >= 1 - _EDGE
    ends = (1 - cosine.detach().sign()) * math.pi / 2
    return torch.where(edge, ends, cosine.masked_fill(edge, 0.0).acos())
