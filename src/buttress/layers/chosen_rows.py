"""Which rows a network has chosen of an input, as an expert's tokens: read off the autograd graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# What picks rows by their number, and where its node in the graph keeps them.
_CHOOSES = {
    "IndexBackward0": "_saved_indices",
    "IndexSelectBackward0": "_saved_index",
    "GatherBackward0": "_saved_index",
    "MaskedSelectBackward0": "_saved_mask",
    "TakeBackward0": "_saved_index",
}
# What takes one place or a run of them, which the network's code may have chosen by the input.
_CUTS = {
    "SelectBackward0": ("_saved_index",),
    "SliceBackward0": ("_saved_start", "_saved_end"),
}
Choice = tuple[Tensor | int, ...]


def chosen_rows(value: Tensor) -> Choice:
    """The numbers of the rows that a value is computed of, in an order that follows from the graph.

    Of what picks rows by tensors of numbers the last counts, seen from the value: what lies before it has all of them.

    Args:
        value: of a pass with a graph; without one nothing is known.
    """
    found: list[Tensor | int] = []
    seen: set[Any] = set()
    waiting = [(value.grad_fn, 0)] if value.grad_fn is not None else []
    while waiting:
        node, output = waiting.pop()
        if (node, output) in seen:
            continue
        seen.add((node, output))
        kind = node.name()
        if kind in _CHOOSES:
            found += _tensors(getattr(node, _CHOOSES[kind]))
            continue
        found += [getattr(node, where) for where in _CUTS.get(kind, ())]
        if kind == "UnbindBackward0":
            found.append(output)
        waiting += [(source, number) for source, number in node.next_functions if source is not None]
    return tuple(found)


def same_choice(one: Choice, other: Choice) -> bool:
    """Whether two values are of the same rows, as far as that is known."""
    return len(one) == len(other) and all(map(_equal, one, other))


def _equal(one: Tensor | int, other: Tensor | int) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return isinstance(one, int) and isinstance(other, int) and one == other


def _tensors(saved: Any) -> list[Tensor]:
    each = saved if isinstance(saved, tuple | list) else (saved,)
    return [tensor.detach().clone() for tensor in each if isinstance(tensor, Tensor)]
