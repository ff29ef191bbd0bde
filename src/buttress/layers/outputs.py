"""The value of what a module returns, where that is more than a tensor; and another in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def first_tensor(output: Any) -> tuple[Any, Callable[[nn.Module, Tensor], Any]]:
    """The value of what a module returns, the first tensor in it; and how another is put in its place."""
    if isinstance(output, Mapping):
        key = next((k for k, part in output.items() if isinstance(part, Tensor)), None)
        return output.get(key), lambda module, value: _with(output, key, value)
    if isinstance(output, list) and output:
        return output[0], lambda module, value: [value, *output[1:]]
    if isinstance(output, PackedSequence):
        return output.data, lambda module, value: output._replace(data=value)
    if type(output) is tuple and output and isinstance(output[0], PackedSequence):
        return output[0].data, lambda module, value: (output[0]._replace(data=value), *output[1:])
    if type(output) is tuple and output:
        return output[0], lambda module, value: (value, *_states(module, value, output[0], output[1:]))
    return output, lambda module, value: value


def _with(output: Any, key: Any, value: Tensor) -> Any:
    changed = copy(output)
    changed[key] = value
    return changed


def _states(module: nn.Module, value: Tensor, before: Tensor, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """What else a module returns, with the last states of a recurrent layer taken from its new outputs."""
    if not isinstance(module, nn.RNNBase) or not rest:
        return rest
    single = before.dim() == 2  # no batch
    steps = value.transpose(0, 1) if module.batch_first and not single else value
    hidden = rest[0][0] if isinstance(rest[0], tuple) else rest[0]
    if bool(module.bidirectional):
        half = steps.shape[-1] // 2
        last = torch.stack([steps[-1, ..., :half], steps[0, ..., half:]])
    else:
        last = steps[-1][None]
    hidden = torch.cat([hidden[: len(hidden) - len(last)], last])
    return ((hidden, *rest[0][1:]) if isinstance(rest[0], tuple) else hidden, *rest[1:])
