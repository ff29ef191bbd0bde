"""What is nonlinear and no layer: activations and products written by hand, or run where no Python is called.

They are found in the autograd graph of a pass.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from buttress.layers.attention_products import attention_products
from buttress.layers.graph import Graph, in_order, next_number, sources
from buttress.layers.nonlinear import is_activation_like, is_nonlinear, operation, picks_numbers
from buttress.layers.outputs import first_tensor, is_wrapped
from buttress.layers.select import activation_kind, chooses_steps, is_opaque

_FRESH = re.compile("_like$|^new_")  # of an argument these read its shape alone
_IN_FORM_OF = re.compile("_as$|^to$")  # and these of any but the first, or its data type
_OF_TORCH = ("torch.nn.", "torch.utils.checkpoint", "torch.distributed.")


@dataclass(frozen=True, eq=False)
class _Call:
    """What made some nodes of the graph.

    Attributes:
        name: of the function, in the module that called it.
        told: whether it may be told as missed: whether it is neither an activation that is seen nor certainly none.
        aside: what it read that depends on the input without a gradient.
        size: how many numbers the largest tensor has that it read.
        singly: whether it reads or writes single numbers by an index, and not rows.
    """

    name: str
    told: bool
    aside: Sequence[Tensor] = ()
    size: int = 0
    singly: bool = False


class ByHand:
    """Follows one pass, and tells afterwards which nonlinear operations no layer stands for."""

    def __init__(self) -> None:
        self._made: dict[Any, _Call] = {}
        self._aside: dict[
            int, tuple[Tensor, Any]
        ] = {}  # and which node it came of; held, for an identity is given again
        self._left: list[tuple[str, Any]] = []  # what handed numbers to code beyond torch, and of which node
        self._outside: set[Any] | None = None
        self._ends: list[Any] = []

    @contextmanager
    def following(self, root: nn.Module, modules: Sequence[nn.Module]) -> Iterator[None]:
        """Notice what runs in the network, not before or after it, and in those of its modules that are one layer."""
        handles = [root.register_forward_pre_hook(self._begin), root.register_forward_hook(self._end)]
        entered: list[int] = []

        def enter(module: nn.Module, args: Any) -> None:
            entered.append(next_number())

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._note(tensors(output), entered.pop(), _Call("", told=False))

        for module in modules:
            if chooses_steps(module) or is_opaque(module):
                # By the class, for scripted modules refuse it; their hooks are called all the same.
                handles.append(nn.Module.register_forward_pre_hook(module, enter))
                handles.append(nn.Module.register_forward_hook(module, leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def see(self, function: str, args: tuple[Any, ...], output: Any, path: str, first: int) -> None:
        """A function of torch's has run.

        Args:
            function: its name.
            args: its arguments.
            output: its result.
            path: the module that called it.
            first: the autograd graph's next number before.
        """
        given, results = tensors(args), tensors(output)
        if function == "__setitem__":
            results = given[:1]
        if _IN_FORM_OF.search(function):
            given = given[:1]
        if any(map(is_wrapped, (*given, *results))):
            return
        # Not what has got a gradient since, as the output of a checkpoint that autograd makes.
        aside = [value for value in given if id(value) in self._aside and not value.requires_grad]
        if not aside and not any(value.requires_grad for value in (*given, *results)):
            return
        origin = next((value.grad_fn for value in given if value.requires_grad), None)
        origin = origin or next((self._aside[id(value)][1] for value in aside), None)
        for value in results:
            if not value.requires_grad and not _FRESH.search(function):
                self._aside[id(value)] = value, origin
        plain = function.strip("_")
        known = activation_kind(function) is not None
        seen = known and not any(value.is_complex() for value in results)  # complex values are no layers
        told = not seen and (known or is_activation_like(plain))
        size = max((value.numel() for value in given), default=0)
        same = path.rpartition(".")[2] == plain  # a module that is called as its function
        name = path if same else f"{path}.{plain}" if path else plain
        if function in ("numpy", "__array__"):
            self._left.append((f"{path}.numpy" if path else "numpy", origin))
        self._note(results, first, _Call(name, told, aside, size, picks_numbers(function, args)))

    def told(self, graph: Graph, last: Callable[[Any], int], names: Sequence[str]) -> list[str]:
        """Each function or node that may be an activation, and the layer after which it comes.

        So are products of matrices, kernels and the like of which two factors depend on the input; not those of
        attention, which its softmax tells.

        Args:
            graph: from the input to the output.
            last: for a node, which layer feeds it.
            names: of the layers.
        """

        def place(what: str, before: int) -> str:
            return f"{what} after {names[before]}" if before >= 0 else f"{what} of the input"

        depends, found = set(graph.order), dict[Any, str]()
        inside = {node for end in self._ends for node in in_order(end, self._outside or ())}
        inside -= attention_products(graph.order)
        for node in graph.order:
            if node not in inside:
                continue
            call = self._made.get(node)
            what = _nonlinear(node, call, depends)
            if what and (call or node) not in found:
                found[call or node] = place(what, max((last(source) for source in sources(node)), default=-1))
        found |= {k: place(what, last(node)) for k, (what, node) in enumerate(self._left)}
        return [f"{item} ({count} times)" if count > 1 else item for item, count in Counter(found.values()).items()]

    def _begin(self, module: nn.Module, args: Any) -> None:
        if self._outside is None:
            self._outside = {node for value in tensors(args) for node in in_order(value.grad_fn)}

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self._ends += [value.grad_fn for value in tensors(output)]

    def _note(self, results: Sequence[Tensor], first: int, call: _Call) -> None:
        """Everything upstream of the results that is new was made by this call."""
        waiting = [value.grad_fn for value in results if value.requires_grad]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self._made and node._sequence_nr() >= first:
                self._made[node] = call
                waiting += sources(node)


def _nonlinear(node: Any, call: _Call | None, depends: set[Any]) -> str | None:
    """What to call a node, where it may be an activation."""
    if call is not None:
        return call.name if call.told and is_nonlinear(node, depends, call.aside, call.size, call.singly) else None
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        name = type(node).__name__.removesuffix("Backward")
        if name.startswith("CompiledFunction"):
            return "compiled function"
        module = getattr(type(node), "_forward_cls", type(node)).__module__
        return None if module.startswith(_OF_TORCH) else f"custom function {name}"
    if operation(node.name()) == "DifferentiableGraph":
        return "scripted function"
    return _spelled(operation(node.name())) if is_nonlinear(node, depends) else None


def _spelled(kind: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def tensors(values: Any) -> list[Tensor]:
    """All tensors in a structure; of another object the one that counts as its value, if any."""
    found = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return found or [value for value in (first_tensor(values)[0],) if isinstance(value, Tensor)]
