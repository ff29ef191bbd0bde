"""The value of what a module returns, where that is more than a tensor; and another in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


def first_tensor(output: Any) -> tuple[Any, Callable[[nn.Module, Tensor], Any]]:
    """The value of what a module returns, the first tensor in it; and how another is put in its place."""
    if isinstance(output, Mapping):
        key = next((k for k, part in output.items() if isinstance(part, Tensor)), None)
        return output.get(key), lambda module, value: _with(output, key, value)
    if isinstance(output, list | tuple) and output:
        first, put = first_tensor(output[0])
        return first, lambda module, value: _rebuilt(output, module, put(module, value))
    return output, lambda module, value: value


def _with(output: Any, key: Any, value: Tensor) -> Any:
    changed = copy(output)
    changed[key] = value
    return changed


def _rebuilt(output: Any, module: nn.Module, first: Any) -> Any:
    """The list, tuple or named tuple with another first part."""
    if isinstance(output, list):
        return [first, *output[1:]]
    parts = (first, *_states(module, first, output[1:]))
    return type(output)(*parts) if hasattr(output, "_fields") else parts


def _states(module: nn.Module, first: Any, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """What else a module returns, with the last states of a recurrent layer taken from its new outputs."""
    if not isinstance(module, nn.RNNBase) or not isinstance(first, Tensor | PackedSequence) or len(rest) != 1:
        return rest
    if isinstance(first, PackedSequence):
        steps, lengths = pad_packed_sequence(first)
        end = steps[lengths.to(steps.device) - 1, torch.arange(len(lengths), device=steps.device)]
    else:
        steps = first.transpose(0, 1) if module.batch_first and first.dim() == 3 else first
        end = steps[-1]
    half = end.shape[-1] // 2
    last = torch.stack([end[..., :half], steps[0, ..., half:]]) if bool(module.bidirectional) else end[None]
    hidden = rest[0][0] if isinstance(rest[0], tuple) else rest[0]
    hidden = torch.cat([hidden[: len(hidden) - len(last)], last])
    return ((hidden, *rest[0][1:]) if isinstance(rest[0], tuple) else hidden,)
