"""The autograd graph between two nodes, in order."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, autograd

_Key = TypeVar("_Key", bound=Hashable)
_number: Any = vars(autograd)["_get_sequence_nr"]


class Graph:
    """The part of the autograd graph between two nodes.

    Attributes:
        order: its nodes, each after those that it depends on.
    """

    def __init__(self, end: Any, start: Any) -> None:
        self.end, self.start = end, start
        every, leads = in_order(end), set()
        for node in every:
            if node is start or any(source in leads for source in sources(node)):
                leads.add(node)
        self.order = [node for node in every if node in leads]

    def last_owner(self, owners: dict[Any, int]) -> Callable[[Any], int]:
        """For any node, the last executed of the owned nodes that feed it, nothing owned in between; -1 for none."""
        nearest: dict[Any, int] = {}

        def find(node: Any) -> int:
            for below in in_order(node, nearest):
                before = (nearest[source] for source in sources(below))
                nearest[below] = owners[below] if below in owners else max(before, default=-1)
            return nearest[node]

        return find

    def spanned(self) -> dict[Any, bool]:
        """For each node between start and end, whether a path leads past it: whether an edge spans it in the order."""
        if self.end is None or self.start is None or not self.order or self.order[-1] is not self.end:
            return {}
        position = {node: k for k, node in enumerate(self.order)}
        reach = [k for k in range(len(self.order))]  # the furthest that an edge from each node goes
        for node in self.order:
            for source in sources(node):
                if source in position:
                    reach[position[source]] = max(reach[position[source]], position[node])
        furthest, past = -1, {}
        for k, node in enumerate(self.order):
            past[node] = furthest > k
            furthest = max(furthest, reach[k])
        return past


def sources(node: Any) -> list[Any]:
    """What a node depends on."""
    return [source for source, _ in node.next_functions if source is not None]


def in_order(end: Any, done: Container[Any] = ()) -> list[Any]:
    """The nodes upstream of one and itself, each after those that it depends on; without what is done."""
    order: list[Any] = []
    seen: set[Any] = set()
    waiting = [] if end is None else [(end, False)]
    while waiting:
        node, complete = waiting.pop()
        if complete:
            order.append(node)
        elif node not in seen and node not in done:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(source, False) for source in sources(node)]
    return order


def leading_to(x: Tensor, values: Mapping[_Key, Tensor]) -> set[_Key]:
    """The keys of those values whose graph begins at ``x``, which others' do not that hang on parameters alone.

    Args:
        x: the inputs, which the graph knows by their numbers: it may be a copy.
        values: of a pass of these inputs.
    """
    leads: dict[Any, bool] = {}
    for value in values.values():
        for node in in_order(value.grad_fn, leads):
            leads[node] = _holds(node, x) or any(leads[source] for source in sources(node))
    return {key for key, value in values.items() if value.grad_fn is not None and leads[value.grad_fn]}


def _holds(node: Any, x: Tensor) -> bool:
    """Whether a node is the leaf with the numbers of ``x``."""
    if node.next_functions or not isinstance(leaf := getattr(node, "variable", None), Tensor):
        return False
    return leaf.shape == x.shape and leaf.dtype == x.dtype and torch.equal(leaf.detach(), x)


def next_number() -> int:
    """The number that the next node of the autograd graph gets."""
    return int(_number())
