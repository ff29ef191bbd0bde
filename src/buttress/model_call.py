"""The one place through which a user's network is called: it gets tensors of its own, and what it returns is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_HALF = (torch.float16, torch.bfloat16)


def call_model(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    """``model(x)``, whatever the network does with the tensors it is handed and with those it returns.

    It gets a copy of the inputs, no leaf of a graph, so it may write there. Its output is copied too, since a network
    may fill the same buffer at each call. A network whose matrices and kernels are of half precision gets inputs of
    that precision. To a single input's output the axis of inputs is given back where the network has squeezed it away.

    Args:
        model: the network, or any callable.
        x: (N, ...) inputs.

    Returns:
        What the network returns; a tensor as a copy, anything else as it is.
    """
    half = half_precision(model) if x.is_floating_point() else None
    output = model(x.to(x.dtype if half is None else half, copy=True))
    if not isinstance(output, Tensor):
        return output
    if len(x) == 1 and (output.dim() == 0 or len(output) != 1):
        output = output[None]
    return output.clone()


def half_precision(model: object) -> torch.dtype | None:
    """The data type of a network whose matrices and kernels are all float16, or all bfloat16; None of any other.

    Scales and offsets, as of BatchNorm, may be float32.
    """
    if not isinstance(model, nn.Module):
        return None
    found: torch.dtype | None = None
    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.dim() < 2:
            continue
        if parameter.dtype not in _HALF or found not in (None, parameter.dtype):
            return None
        found = parameter.dtype
    return found


def parameter_dtype(model: object) -> torch.dtype | None:
    """float32 or float64, where the network's parameters are all of it or of less; None where both are mixed."""
    if not isinstance(model, nn.Module):
        return None
    found = {p.dtype for p in model.parameters()} & {torch.float32, torch.float64}
    return found.pop() if len(found) == 1 else None
