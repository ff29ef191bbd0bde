"""What goes into and comes out of every call of a network's blocks in one pass."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map

from buttress.engine.preserved_model import preserved
from buttress.layers.select import user_module
from buttress.layers.watcher import Watcher, watch
from buttress.model_call import call_model


@dataclass
class Record:
    """One call of a block: its arguments as leaves of ``spec``, as they were given and copied, and its output."""

    module: nn.Module
    spec: TreeSpec
    given: list[Any]
    leaves: list[Any]
    output: Any = None

    def tensors(self) -> dict[int, Tensor]:
        """The tensors that went in, by their places among the leaves, and the first that came out, at -1."""
        found = {k: leaf for k, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)}
        out = first_numbers(self.output)
        return found if out is None else found | {-1: out}


def record_calls(model: nn.Module, x: Tensor, blocks: Collection[str], seed: int = 0) -> dict[str, Record]:
    """Every call of these modules in one pass in eval mode, by the names of layers, in the order in which they end.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        blocks: names of modules; "" is the network itself.
        seed: of what a random network draws.
    """
    root, gradients = user_module(model), torch.is_grad_enabled()
    handles = []
    # Its hooks are there first, so that a call has its name when the recorder's hook runs.
    with watch(model, lambda name, module: False, lambda name, value: value) as watcher:
        recorder = _Recorder(root, watcher)
        try:
            for module in dict.fromkeys(root.get_submodule(name) for name in blocks):
                handles.append(module.register_forward_pre_hook(recorder.enter, with_kwargs=True))
                handles.append(module.register_forward_hook(recorder.leave))
            with preserved(model, "eval", seed, x.device), torch.set_grad_enabled(gradients):
                call_model(model, x)
        finally:
            for handle in handles:
                handle.remove()
    return recorder.records


class _Recorder:
    """Hooks that record the calls of modules, which may be nested."""

    def __init__(self, root: nn.Module, watcher: Watcher) -> None:
        self.records: dict[str, Record] = {}
        self._root, self._watcher = root, watcher
        self._running: list[Record] = []
        self._names: dict[nn.Module, list[str]] = {}
        for name, module in root.named_modules(remove_duplicate=False):
            self._names.setdefault(module, []).append(name)

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given, spec = tree_flatten((args, kwargs))
        self._running.append(Record(module, spec, given, [copied(leaf) for leaf in given]))  # it may write there

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        record = self._running.pop()
        if module is self._root and any(other.module is module for other in self._running):
            return  # a network that calls itself is one block
        record.output = tree_map(copied, output)
        self.records[self._name(module)] = record

    def _name(self, module: nn.Module) -> str:
        own, last = self._names[module], next(reversed(self._watcher.places), "")
        named = last and module is not self._root and self._watcher.places[last].base in own
        if named and last not in self.records:
            return last
        name, run = own[0], 0  # what gives no numbers is no layer and has no name
        while name in self.records:
            run += 1
            name = f"{own[0]}#{run}"
        return name


def copied(leaf: Any) -> Any:
    """A tensor's copy; anything else as it is."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def all_tensors(values: Any) -> list[Tensor]:
    """All tensors in nested containers."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def first_numbers(output: Any) -> Tensor | None:
    """The first tensor of floating-point numbers in nested containers."""
    return next((tensor for tensor in all_tensors(output) if tensor.is_floating_point()), None)
