"""How layers hang together: which layer feeds which, and which ones every path from input to output crosses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.engine.call_checks import check_numbers
from buttress.engine.preserved_model import preserved
from buttress.layers.by_hand import ByHand
from buttress.layers.graph import Graph, sources
from buttress.layers.network_code import NetworkCode
from buttress.layers.parameter_gradients import parameters_require_grad
from buttress.layers.select import LayerSelection, Seen, user_module
from buttress.layers.watcher import watch
from buttress.layers.weighted_calls import WeightedCalls
from buttress.model_call import call_model
from buttress.tasks import Task, require_task


@dataclass(frozen=True)
class Paths:
    """The selected layers in order of execution.

    Attributes:
        names: what they are called.
        predecessors: for each, the position of the layer that feeds it, or -1 for the input. Where several do (a
            residual sum), the last executed; where there is no gradient to follow, the one executed before.
        crossed: for each, whether every differentiable path from the input to the output goes through it.
        missed: what may be an activation and is not seen as one, since it is written by hand or runs where no Python is
            called: the function, and the layer after which it comes; see `ByHand`. Of the layers with weights also what
            multiplies by weights outside of them; see `WeightedCalls`.
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
        UserError: when the selection matches nothing, and for inputs that are no float32 or float64 tensor.
    """
    user_module(model)
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
    code: NetworkCode | None = None,
) -> Paths:
    """Read the layers' order and connections off the autograd graph of one pass in eval mode.

    Args:
        model: the network.
        x: (N, ...) inputs; one is enough.
        layers: which layers.
        task: how to read the output.
        check: whether to refuse a selection that matches nothing.
        code: what has been read of the network's code.

    Raises:
        UserError: when the selection matches nothing, and for what is no task.
    """
    require_task(task)
    names: list[str] = []
    nodes: list[Any] = []
    by_hand, weighted = ByHand(), WeightedCalls(user_module(model))

    def note(name: str, value: Tensor) -> Tensor:
        names.append(name)
        nodes.append(value.grad_fn)
        return value

    with (
        preserved(model, "eval", 0, x.device),
        parameters_require_grad(model, False),
        watch(model, layers, note, code=code) as watcher,
        by_hand.following(watcher.root, [*watcher.paths]),
    ):

        def see(*call: Any) -> None:
            by_hand.see(*call)
            weighted.see(*call)

        watcher.calls = see if layers == "learnable" else by_hand.see
        start = x.detach().clone().requires_grad_(x.is_floating_point()).clone()
        end = task.read(call_model(model, start)).grad_fn
    graph = Graph(end, start.grad_fn)
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
        predecessors.append(same[-1] if same else max((last(source) for source in sources(node)), default=-1))
        crossed.append(node in spanned and not spanned[node])
    missed = by_hand.told(graph, last, names)
    if layers == "learnable":
        missed += weighted.outside_of(names, watcher.root)
    if check:
        watcher.selection.check(names, lambda: Seen(watcher.all_names, missed))
    return Paths(names, predecessors, crossed, missed)


@in_usual_state
def everything_seen(model: nn.Module, x: Tensor, *, task: Task = tasks.classification) -> Seen:
    """All layers that these inputs call, selected or not, containers too, and what may be one and is not seen."""
    with preserved(model, "eval", 0, x.device), torch.no_grad(), watch(model, (), lambda _, value: value) as watcher:
        call_model(model, x)
    return Seen(watcher.all_names, trace(model, x, "activations", task=task, check=False).missed)
