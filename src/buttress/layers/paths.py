"""How layers hang together: which layer feeds which, and which ones every path from input to output crosses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import preserved
from buttress.layers.select import LayerSelection
from buttress.layers.watcher import watch
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
    """

    names: list[str]
    predecessors: list[int]
    crossed: list[bool]


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
        UserError: when the selection matches nothing.
    """
    paths = trace(model, x, layers, task=task)
    return dict(zip(paths.names, paths.crossed, strict=True))


@in_usual_state
def trace(model: nn.Module, x: Tensor, layers: LayerSelection, *, task: Task = tasks.classification) -> Paths:
    """Read the layers' order and connections off the autograd graph of one pass in eval mode.

    Raises:
        UserError: when the selection matches nothing, and for what is no task.
    """
    require_task(task)
    names: list[str] = []
    nodes: list[Any] = []

    def note(name: str, value: Tensor) -> Tensor:
        names.append(name)
        nodes.append(value.grad_fn)
        return value

    with preserved(model, "eval", 0, x.device), watch(model, layers, note) as watcher:
        start = x.detach().clone().requires_grad_().clone()
        end = task.read(call_model(model, start)).grad_fn
    watcher.selection.check(names, watcher.all_names)
    owners: dict[Any, list[int]] = {}
    for index, node in enumerate(nodes):
        owners.setdefault(node, []).append(index)
    predecessors, crossed = [], []
    for index, node in enumerate(nodes):
        if node is None:
            predecessors.append(index - 1)
            crossed.append(False)
            continue
        same = [i for i in owners[node] if i < index]  # a layer that hands its input on unchanged
        if same:
            predecessors.append(same[-1])
        else:
            reached = _walk(_inputs(node), stop=owners)
            predecessors.append(max((owners[n][-1] for n in reached if n in owners), default=-1))
        crossed.append(end is not None and _leads(end, start.grad_fn) and start.grad_fn not in _walk([end], {node}))
    return Paths(names, predecessors, crossed)


def _inputs(node: Any) -> list[Any]:
    return [source for source, _ in node.next_functions if source is not None]


def _leads(end: Any, start: Any) -> bool:
    return start in _walk([end], ())


def _walk(begin: Iterable[Any], stop: Iterable[Any]) -> set[Any]:
    """Every node of the autograd graph upstream of ``begin``, not going beyond those in ``stop``."""
    barrier, reached, waiting = set(stop), set(), list(begin)
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            if node not in barrier:
                waiting += _inputs(node)
    return reached
