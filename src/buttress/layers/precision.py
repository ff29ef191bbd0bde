"""Parts of networks that compute in half precision, in single precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from buttress.tensor_forms import copied_network

_HALF = (torch.float16, torch.bfloat16)


def in_single_precision(value: Any) -> Any:
    """A tensor of half precision as float32; of a module with such parameters or buffers a copy; else the value."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, nn.Module) and any(t.dtype in _HALF for t in (*value.parameters(), *value.buffers())):
        return copied_network(value).float().eval()
    return value


def computes_in_single_precision(function: Callable[[], Any]) -> bool:
    """Whether a function runs without any result of half precision, as under an autocast of its own."""
    watch = _HalfResults()
    try:
        with watch:
            function()
    except RuntimeError:  # numbers of its own casts meet those of single precision
        return False
    return not watch.any


class _HalfResults(TorchFunctionMode):
    """Notes whether any operation gives numbers of half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.any = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.any = self.any or any(isinstance(leaf, Tensor) and leaf.dtype in _HALF for leaf in tree_leaves(result))
        return result
