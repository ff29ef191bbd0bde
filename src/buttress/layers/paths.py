"""How layers hang together: which layer feeds which, and which ones every path from input to output crosses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.engine.call_checks import check_numbers
from buttress.engine.preserved_model import preserved
from buttress.layers.rows import parameters_fixed
from buttress.layers.select import LayerSelection, activation_kind
from buttress.layers.watcher import watch
from buttress.model_call import call_model
from buttress.tasks import Task, require_task

# Functions that an activation may be written with by hand, beside a product of two values that depend on the input.
_BY_HAND = frozenset(
    (
        *("abs", "clamp", "clamp_max", "clamp_min", "clip", "cos", "erf", "exp", "fmax", "fmin", "heaviside", "max"),
        *("maximum", "min", "minimum", "pow", "sin", "square", "where"),
    )
)
_PRODUCTS = frozenset(("mul", "multiply", "rmul", "imul"))


@dataclass(frozen=True)
class Paths:
    """The selected layers in order of execution.

    Attributes:
        names: what they are called.
        predecessors: for each, the position of the layer that feeds it, or -1 for the input. Where several do (a
            residual sum), the last executed; where there is no gradient to follow, the one executed before.
        crossed: for each, whether every differentiable path from the input to the output goes through it.
        missed: what may be an activation and is not seen as one, since it is written by hand: the function, and the
            layer after which it is called.
    """

    names: list[str]
    predecessors: list[int]
    crossed: list[bool]
    missed: list[str] = field(default_factory=list)

    def only(self, names: Sequence[str]) -> Paths:
        """These layers alone, in this order; what fed one that is gone takes its place."""
        position = {name: k for k, name in enumerate(names)}
        feeds: dict[str, str | None] = {}
        for k, name in enumerate(self.names):
            before = self.predecessors[k]
            while before >= 0 and self.names[before] not in position:
                before = self.predecessors[before]
            feeds[name] = self.names[before] if before >= 0 else None
        crossed = dict(zip(self.names, self.crossed, strict=True))
        predecessors = []
        for k, name in enumerate(names):
            feed = feeds.get(name)
            predecessors.append(k - 1 if name not in feeds else -1 if feed is None else position[feed])
        return Paths(list(names), predecessors, [crossed.get(name, False) for name in names], self.missed)

    def extended(self, other: Paths) -> Paths:
        """With the layers that only other inputs reach, after the rest."""
        names = [*self.names, *(name for name in other.names if name not in self.names)]
        predecessors, crossed = list(self.predecessors), list(self.crossed)
        for name in names[len(self.names) :]:
            k = other.names.index(name)
            before = other.predecessors[k]
            predecessors.append(names.index(other.names[before]) if before >= 0 else -1)
            crossed.append(False)  # some inputs do not reach it
        return Paths(names, predecessors, crossed, [*dict.fromkeys((*self.missed, *other.missed))])


def crossed_by_every_path(
    model: nn.Module, x: Tensor, layers: LayerSelection = "activations", *, task: Task = tasks.classification
) -> dict[str, bool]:
    """Which layers every path from the input to the output goes through: put a constant there, and ``x`` is cut off.

    Args:
        model: the network.
        x: (N, ...) inputs; one is enough.
        layers: which layers.
        task: how to read the output.

    Raises:
        UserError: when the selection matches nothing, and for inputs that are no float32 or float64.
    """
    check_numbers(x)
    paths = trace(model, x, layers, task=task)
    return dict(zip(paths.names, paths.crossed, strict=True))


@in_usual_state
def trace(
    model: nn.Module,
    x: Tensor,
    layers: LayerSelection,
    *,
    task: Task = tasks.classification,
    check: bool = True,
) -> Paths:
    """Read the layers' order and connections off the autograd graph of one pass in eval mode.

    Args:
        model: the network.
        x: (N, ...) inputs; one is enough.
        layers: which layers.
        task: how to read the output.
        check: whether to refuse a selection that matches nothing.

    Raises:
        UserError: when the selection matches nothing, and for what is no task.
    """
    require_task(task)
    names: list[str] = []
    nodes: list[Any] = []
    by_hand: list[str] = []

    def note(name: str, value: Tensor) -> Tensor:
        names.append(name)
        nodes.append(value.grad_fn)
        return value

    def see(function: str, args: tuple[Any, ...], output: Any, path: str) -> None:
        if isinstance(output, Tensor) and output.requires_grad and _written_by_hand(function.strip("_"), args):
            function = f"{path}.{function.strip('_')}" if path else function.strip("_")
            by_hand.append(f"{function} after {names[-1]}" if names else f"{function} of the input")

    with preserved(model, "eval", 0, x.device), parameters_fixed(model), watch(model, layers, note) as watcher:
        watcher.calls = see
        start = x.detach().clone().requires_grad_(x.is_floating_point()).clone()
        end = task.read(call_model(model, start)).grad_fn
    if check:
        watcher.selection.check(names, lambda: watcher.all_names)
    graph = _Graph(end, start.grad_fn)
    owners: dict[Any, list[int]] = {}
    for index, node in enumerate(nodes):
        if node is not None:
            owners.setdefault(node, []).append(index)
    last = graph.last_owner({node: indices[-1] for node, indices in owners.items()})
    spanned = graph.spanned()
    predecessors, crossed = [], []
    for index, node in enumerate(nodes):
        if node is None:
            predecessors.append(index - 1)
            crossed.append(False)
            continue
        same = [i for i in owners[node] if i < index]  # a layer that hands its input on unchanged
        predecessors.append(same[-1] if same else max((last(source) for source in _inputs(node)), default=-1))
        crossed.append(node in spanned and not spanned[node])
    by_hand += [
        f"custom function {type(node).__name__.removesuffix('Backward')}"
        + (f" after {names[k]}" if (k := max((last(source) for source in _inputs(node)), default=-1)) >= 0 else "")
        for node in graph.order
        if isinstance(node, torch.autograd.function.BackwardCFunction)
        and "CheckpointFunction" not in type(node).__name__  # of torch's own, whose inside is seen
    ]
    return Paths(names, predecessors, crossed, _counted(by_hand))


def _written_by_hand(function: str, args: tuple[Any, ...]) -> bool:
    values = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
    if function in ("max", "min"):
        return len(args) > 1 and isinstance(args[1], Tensor)
    special = function.startswith("special_") and activation_kind(function) is None
    return bool(values) and (special or function in _BY_HAND or (function in _PRODUCTS and len(values) > 1))


def _counted(items: list[str]) -> list[str]:
    return [f"{item} ({count} times)" if count > 1 else item for item, count in Counter(items).items()]


class _Graph:
    """The part of the autograd graph between two nodes.

    Attributes:
        order: its nodes, each after those that it depends on.
    """

    def __init__(self, end: Any, start: Any) -> None:
        self.end, self.start = end, start
        every, leads = _sorted(end), set()
        for node in every:
            if node is start or any(source in leads for source in _inputs(node)):
                leads.add(node)
        self.order = [node for node in every if node in leads]

    def last_owner(self, owners: dict[Any, int]) -> Callable[[Any], int]:
        """For any node, the last executed of the owned nodes that feed it, nothing owned in between; -1 for none."""
        nearest: dict[Any, int] = {}

        def find(node: Any) -> int:
            for below in _sorted(node, nearest):
                sources = (nearest[source] for source in _inputs(below))
                nearest[below] = owners[below] if below in owners else max(sources, default=-1)
            return nearest[node]

        return find

    def spanned(self) -> dict[Any, bool]:
        """For each node between start and end, whether a path leads past it: whether an edge spans it in the order."""
        if self.end is None or self.start is None or not self.order or self.order[-1] is not self.end:
            return {}
        position = {node: k for k, node in enumerate(self.order)}
        reach = [k for k in range(len(self.order))]  # the furthest that an edge from each node goes
        for node in self.order:
            for source in _inputs(node):
                if source in position:
                    reach[position[source]] = max(reach[position[source]], position[node])
        furthest, past = -1, {}
        for k, node in enumerate(self.order):
            past[node] = furthest > k
            furthest = max(furthest, reach[k])
        return past


def _inputs(node: Any) -> list[Any]:
    return [source for source, _ in node.next_functions if source is not None]


def _sorted(end: Any, done: Container[Any] = ()) -> list[Any]:
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
            waiting += [(source, False) for source in _inputs(node)]
    return order
