"""The one place through which a user's network is called: it gets tensors of its own, and what it returns is kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_last: weakref.ref[object] | None = None
_HALF = (torch.float16, torch.bfloat16)


def call_model(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    """``model(x)``, whatever the network does with the tensors it is handed and with those it returns.

    It gets a copy of the inputs, no leaf of a graph, so it may write there. Its output is copied too, since a network
    may fill the same buffer at each call. A network whose matrices and kernels are of half precision gets inputs of
    that precision, and one of float64 alone such inputs. To a single input's output the axis of inputs is given back
    where the network has squeezed it away.

    Args:
        model: the network, or any callable.
        x: (N, ...) inputs.

    Returns:
        What the network returns; a tensor as a copy, anything else as it is.
    """
    _remember(model)
    output = model(x.to(_dtype_taken(model, x), copy=True))
    if not isinstance(output, Tensor):
        return output
    if len(x) == 1 and (output.dim() == 0 or len(output) != 1):
        output = output[None]
    return output.clone()


def output_parts(output: object) -> dict[Any, Any] | None:
    """What an output that is no tensor holds, by key, name or position; None for one that holds nothing by any.

    Mappings, such as Hugging Face's outputs, named tuples, dataclasses, tuples and lists.
    """
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return dict(enumerate(output)) if isinstance(output, tuple | list) else None


def last_called() -> object | None:
    """The network that was called last, of which an error in a backward pass may be; None where it is gone."""
    return None if _last is None else _last()


def _remember(model: object) -> None:
    global _last
    with suppress(TypeError):  # a callable that nothing can refer to weakly
        _last = weakref.ref(model)


def _dtype_taken(model: object, x: Tensor) -> torch.dtype:
    """The data type in which a network gets inputs."""
    if not x.is_floating_point() or not isinstance(model, nn.Module):
        return x.dtype
    first = next(model.parameters(), None)
    if first is not None and first.dtype == torch.float64 and parameter_dtype(model) == torch.float64:
        return torch.float64
    return half_precision(model) or x.dtype


def half_precision(model: object) -> torch.dtype | None:
    """The data type of a network whose matrices and kernels are all float16, or all bfloat16; None of any other.

    Scales and offsets, as of BatchNorm, may be float32.
    """
    if not isinstance(model, nn.Module):
        return None
    found: torch.dtype | None = None
    for parameter in model.parameters():
        if not parameter.is_floating_point() or is_lazy(parameter) or parameter.dim() < 2:
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
