"""Activations of any network, read (and replaced) while it runs: in true order, functional ones too.

A ``TorchFunctionMode`` sees every activation function that is called, as a module or not; forward hooks that live as
long as the context say in which module. Both are removed at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import preserved
from buttress.layers.select import (
    ACTIVATIONS,
    LayerSelection,
    Selection,
    chooses_steps,
    is_activation,
    is_learnable,
    user_module,
)
from buttress.model_call import call_model

LayerCallback = Callable[[str, Tensor], Tensor]

_WRITING_OPERATORS = frozenset(
    (
        *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__", "__iand__"),
        *("__ior__", "__ixor__", "__ilshift__", "__irshift__", "__setitem__"),
    )
)


@contextmanager
def capture(
    model: nn.Module,
    layers: LayerSelection = "activations",
    *,
    replace: LayerCallback | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Read the selected layers of every pass made inside the context.

    Names are relative to the user's module (`Normalized`, `Output` and `FromProbabilities` are looked through). An
    activation module has its own name, an activation function called in module ``layer1.0`` is ``layer1.0.relu``, one
    called at the root ``relu``; the second call of a name in one pass gets ``#1``, the third ``#2``. Of a module that
    returns a tuple, the first tensor counts.

    Args:
        model: the network; its parts called on their own, outside a pass of the whole, are not seen.
        layers: which layers; see `Selection`.
        replace: gets a selected layer's name and value, and returns what the network shall go on with. An in-place
            function whose returned value the network ignores cannot be replaced.

    Yields:
        name -> value, in order of execution, differentiable; cleared when a pass begins, so it holds the last one. As
        long as the context is open, a value about to be overwritten in place is kept as a copy; where gradients are
        disabled, every value is.

    Raises:
        UserError: when ``model`` is no module, or a compiled or scripted one.
    """
    values: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        value = value if replace is None else replace(name, value)
        # Without a graph a copy is kept, for the network may fill the same memory again in a later pass.
        values[name] = value if torch.is_grad_enabled() else value.clone()
        return value

    with watch(model, layers, keep, values=values):
        yield values


@in_usual_state
def layer_names(model: nn.Module, x: Tensor, layers: LayerSelection = "activations") -> list[str]:
    """The names of the selected layers in order of execution, by one pass in eval mode that leaves no trace.

    Args:
        model: the network.
        x: (N, ...) inputs that it can read.
        layers: which layers; see `Selection`.

    Raises:
        UserError: when nothing matches, or one entry of a list does not; with the nearest names there are.
    """
    names: list[str] = []

    def note(name: str, value: Tensor) -> Tensor:
        names.append(name)
        return value

    with preserved(model, "eval", 0, x.device), torch.no_grad(), watch(model, layers, note) as watcher:
        call_model(model, x)
    watcher.selection.check(names, watcher.all_names)
    return names


@contextmanager
def watch(
    model: nn.Module, layers: LayerSelection, callback: LayerCallback, values: dict[str, Tensor] | None = None
) -> Iterator[Watcher]:
    """Call ``callback`` on every selected layer while the context is open; what it returns replaces the layer's value.

    Args:
        model: the network.
        layers: which layers.
        callback: gets name and value.
        values: tensors to empty at each pass, and to copy before an in-place operation overwrites them.
    """
    root = user_module(model)
    watcher = Watcher(root, Selection(layers), callback, {} if values is None else values)
    handles = []
    try:
        for module in watcher.paths:
            handles.append(module.register_forward_pre_hook(watcher.enter))
            handles.append(module.register_forward_hook(watcher.leave, always_call=True))
        with watcher:
            yield watcher
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _RunningModule:
    """A module that is running: its name, and whether its output was read already as an activation function's."""

    path: str
    module: nn.Module
    output_read: bool = False


class Watcher(TorchFunctionMode):
    """Follows the passes of one module; see `watch`.

    Attributes:
        paths: module -> name, of the modules followed.
        all_names: every name of the last pass, selected or not.
    """

    def __init__(
        self, root: nn.Module, selection: Selection, callback: LayerCallback, values: dict[str, Tensor]
    ) -> None:
        super().__init__()
        # What computes a weight (torch.nn.utils.parametrize) is no layer.
        self.paths = {m: path for path, m in root.named_modules() if "parametrizations" not in path.split(".")}
        self.root, self.selection, self.callback, self.values = root, selection, callback, values
        self.all_names: list[str] = []
        self._running: list[_RunningModule] = []
        self._calls: dict[str, int] = {}
        self._in_callback = False
        self._graphs = torch.is_grad_enabled()

    def enter(self, module: nn.Module, args: Any) -> None:
        """Before a module runs."""
        if module is self.root:
            self._running.clear()
            self._calls.clear()
            self.all_names.clear()
            self.values.clear()
        elif not self._running:
            return  # a part of the network called on its own, as activation checkpointing does in the backward pass
        self._running.append(_RunningModule(self.paths[module], module))

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After a module has run, or has raised: its output, or what takes its place."""
        if not self._running or self._running[-1].module is not module:
            return None
        current = self._running.pop()
        path = current.path
        if module is self.root:
            if not is_learnable(module):
                return None
            path = type(module).__name__.lower()
        if current.output_read:
            return None
        if isinstance(output, tuple) and type(output) is tuple and output:
            first = self._read_output(path, module, output[0])
            return None if first is output[0] else (first, *output[1:])
        value = self._read_output(path, module, output)
        return None if value is output else value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.values and _writes(name, kwargs):
            self._save(kwargs.get("out", args[0] if args else kwargs.get("input")))
        output = func(*args, **kwargs)
        kind = name.strip("_")
        if kind not in ACTIVATIONS or not self._running or self._in_callback:
            return output
        current = self._running[-1]
        if is_activation(current.module) and current.path and not current.output_read:
            current.output_read = True
            return self._read_output(current.path, current.module, output, function=True)
        return self._read_output(f"{current.path}.{kind}" if current.path else kind, None, output, function=True)

    def _read_output(self, base: str, module: nn.Module | None, value: Any, function: bool = False) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        call = self._calls.get(base, 0)
        self._calls[base] = call + 1
        name = f"{base}#{call}" if call else base
        self.all_names.append(name)
        inside = any(current.module is not module and chooses_steps(current.module) for current in self._running)
        if not self.selection.wants(name, module, function, inside):
            return value
        self._in_callback = True
        # A network that takes gradients of its own has graphs even where the caller disabled gradients.
        detached = value if self._graphs or not value.requires_grad else value.detach()
        try:
            replacement = self.callback(name, detached)
            return value if replacement is detached else replacement.to(value.dtype)
        finally:
            self._in_callback = False

    def _save(self, targets: Any) -> None:
        for target in targets if isinstance(targets, Iterable) and not isinstance(targets, Tensor) else (targets,):
            if not isinstance(target, Tensor) or target.layout != torch.strided:
                continue
            address = target.untyped_storage().data_ptr()
            for name, value in self.values.items():
                if value.untyped_storage().data_ptr() == address:
                    with torch.set_grad_enabled(value.requires_grad):
                        self.values[name] = value.clone()


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether the function called ``name`` overwrites one of its arguments."""
    return (
        (name.endswith("_") and not name.endswith("__"))
        or name in _WRITING_OPERATORS
        or bool(kwargs.get("inplace"))
        or kwargs.get("out") is not None
    )
