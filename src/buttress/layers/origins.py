"""What a layer's value is computed of, by the autograd graph: the same in training as in evaluation, or not."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from buttress.engine.preserved_model import Mode, preserved
from buttress.layers.graph import in_order, sources
from buttress.layers.parameter_gradients import parameters_require_grad
from buttress.layers.watcher import watch
from buttress.model_call import call_model

_NO_PART = ("train", "drop", "seed", "offset")  # of what a node has saved: how it was run, not what it computes
_SAME_VALUE = ("Clone", "Alias", "ToCopy", "Detach")


def nearest_parameters(value: Tensor) -> set[nn.Parameter]:
    """The parameters that a value depends on by nothing else with parameters in between."""
    found, seen = set[nn.Parameter](), set[Any]()
    waiting = [value.grad_fn] if value.grad_fn is not None else []
    while waiting:
        node = waiting.pop()
        below = sources(node)
        leaves = (getattr(source, "variable", None) for source in below)
        own = {leaf for leaf in leaves if isinstance(leaf, nn.Parameter)}
        found |= own
        new = () if own else [source for source in below if source not in seen]
        seen.update(new)
        waiting += new
    return found


def written_alike(model: nn.Module, x: Tensor, layers: Sequence[str], draws: int) -> set[str]:
    """The layers whose value is computed by the same functions of the same parameters in both modes; without dropout.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        layers: names.
        draws: training passes, in all of which it must be so that run the layer.
    """
    numbers: dict[Hashable, int] = {}
    usual = _computations(model, x, layers, "eval", 0, numbers)
    alike = set(usual)
    for draw in range(draws):
        for name, number in _computations(model, x, layers, "train", draw, numbers).items():
            if usual.get(name) != number:
                alike.discard(name)
    return alike


def _computations(
    model: nn.Module, x: Tensor, layers: Sequence[str], mode: Mode, draw: int, numbers: dict[Hashable, int]
) -> dict[str, int]:
    """By layer, a number that another value has if it is computed alike; of those that have a graph."""
    found: dict[str, int] = {}

    def note(name: str, value: Tensor) -> Tensor:
        if value.grad_fn is not None:
            found[name] = _number(value.grad_fn, given, numbers)
        return value

    given = x.detach().clone().requires_grad_(x.is_floating_point())
    with (
        preserved(model, mode, draw, x.device),
        torch.enable_grad(),
        parameters_require_grad(model, True),
        _WithoutDropout(),
        watch(model, list(layers), note),
    ):
        call_model(model, given)
    return found


def _number(end: Any, given: Tensor, numbers: dict[Hashable, int]) -> int:
    """The number of what a node computes, made of its kind, of what it has saved and of the numbers of its sources."""
    own: dict[Any, int] = {}
    for node in in_order(end):
        below = [None if source is None else own[source] for source, _ in node.next_functions]
        if node.name().startswith(_SAME_VALUE) and len(below) == 1 and below[0] is not None:
            own[node] = below[0]
            continue
        kind: Hashable = node.name()
        if hasattr(node, "variable"):
            kind = "input" if node.variable is given else id(node.variable)
        which = tuple(index for _, index in node.next_functions)
        own[node] = numbers.setdefault((kind, _saved(node), tuple(below), which), len(numbers))
    return own[end]


def _saved(node: Any) -> tuple[tuple[str, str], ...]:
    """The numbers that belong to what a node computes, such as a factor or an axis."""
    names = [name for name in dir(node) if name.startswith("_saved_") and not any(part in name for part in _NO_PART)]
    values = ((name, getattr(node, name)) for name in names)
    return tuple(
        (name, str(value.item() if isinstance(value, Tensor) else value))
        for name, value in values
        if not isinstance(value, Tensor) or value.dim() == 0
    )


class _WithoutDropout(TorchFunctionMode):
    """Dropout gives what it gets, as in evaluation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "dropout" in getattr(func, "__name__", ""):
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)
