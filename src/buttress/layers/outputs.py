"""The value of what a module returns, where that is more than a tensor; and another in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


def first_tensor(output: Any) -> tuple[Any, Callable[[nn.Module, Tensor], Any]]:
    """The value of what a module returns, the first floating-point tensor in it; and how another is put in its place.

    Looked for in lists, tuples, mappings and dataclasses, to any depth; None where there is none.
    """
    if isinstance(output, Tensor):
        return output, lambda module, value: value
    for key, part in _parts(output):
        first, put = first_tensor(part)
        if isinstance(first, Tensor) and first.is_floating_point():
            return first, partial(_put, output, key, put)
    return None, lambda module, value: value


def _parts(output: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(output, Mapping):
        return output.items()
    if isinstance(output, list | tuple):
        return enumerate(output)
    if is_dataclass(output) and not isinstance(output, type):
        return ((field.name, getattr(output, field.name, None)) for field in fields(output))
    return ()


def _put(output: Any, key: Any, put: Callable[[nn.Module, Tensor], Any], module: nn.Module, value: Tensor) -> Any:
    """The same with another part."""
    part = put(module, value)
    if isinstance(output, tuple):
        parts = [*output[:key], part, *output[key + 1 :]]
        parts = [part, *_states(module, part, output[1:])] if key == 0 else parts
        return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)
    changed = copy(output)
    if isinstance(output, Mapping | list):
        changed[key] = part
    else:
        object.__setattr__(changed, key, part)  # frozen ones too
    return changed


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


def is_wrapped(value: Tensor) -> bool:
    """Whether a tensor exists inside of a transformation of `torch.func` alone, with numbers that cannot be read."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(value))
