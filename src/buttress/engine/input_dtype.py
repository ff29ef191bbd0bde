"""Which data type and device a network takes its inputs in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress.engine.preserved_model import preserved
from buttress.model_call import call_model, parameter_dtype


def input_dtype(model: nn.Module, x: Tensor) -> torch.dtype:
    """What inputs a network takes: float64 where its weights are, else float32.

    Where weights of both kinds are mixed they do not tell, since the network converts what it hands on: float32, unless
    it runs in float64 alone.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs in any data type, of which one or two are tried where that is needed.
    """
    kinds = {parameter.dtype for parameter in model.parameters()}
    if not kinds >= {torch.float32, torch.float64}:
        return parameter_dtype(model) or torch.float32
    return torch.float64 if not _runs(model, x, torch.float32) and _runs(model, x, torch.float64) else torch.float32


def suited(model: nn.Module, x: Tensor) -> Tensor:
    """Inputs on the network's device and of the data type that it takes; as they are where it has no parameters."""
    first = next(iter(model.parameters()), None)
    return x if first is None else x.to(first.device, input_dtype(model, x))


def _runs(model: nn.Module, x: Tensor, dtype: torch.dtype) -> bool:
    device = next(model.parameters()).device
    try:
        with preserved(model, "eval", 0, device), torch.no_grad():
            call_model(model, x[:2].to(device, dtype))
    except Exception:  # whatever a network raises for another data type than it takes
        return False
    return True
