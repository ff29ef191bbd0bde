"""Gradient reversal: what makes features that a second head cannot read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient comes back multiplied by a negative number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` itself, whose gradient is multiplied by ``-strength`` on the way back (Ganin et al., JMLR 2016).

    Args:
        x: any tensor.
        strength: 0 lets no gradient through, 1 turns it round.
    """
    reversed_: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]  # torch's own
    return reversed_
