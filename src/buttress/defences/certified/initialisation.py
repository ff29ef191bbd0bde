"""Weights that keep intervals from growing, at the start of training and while eps rises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LEAST = 0.5  # of the width of the input, for each activation's: tau of Shi et al.


@torch.no_grad()
def initialise_for_intervals(model: nn.Module) -> None:
    """Draw the weights of linear layers and convolutions from N(0, 2 pi / n^2), n the numbers that an output takes.

    Then the width of intervals stays the same over a layer and a ReLU, on average (Shi et al., NeurIPS 2021, equation
    4), while with usual initialisations it grows with sqrt(n). Biases stay.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            count = module.weight[0].numel()
            module.weight.normal_(0, math.sqrt(2 * math.pi) / count)


def growth(widths: Sequence[Tensor]) -> Tensor:
    """How far intervals have grown in a network: 0 where none is more than twice as wide as the input's.

    The tightness term of Shi et al. (NeurIPS 2021, equation 6): the mean over activations of
    max(0, tau - first / width) / tau, with tau 0.5.

    Args:
        widths: of the input, and of what each activation takes.
    """
    first, *others = widths
    if not others:
        return first.new_zeros(())
    shares = first / torch.stack(others).clamp(min=torch.finfo(first.dtype).tiny)
    return (_LEAST - shares).clamp(min=0).mean() / _LEAST
