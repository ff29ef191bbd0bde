"""Activations of any network, read (and replaced) while it runs: in true order, functional ones too.

A ``TorchFunctionMode`` sees every activation function that is called, as a module or not; forward hooks that live as
long as the context say in which module. Neither is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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

See = Callable[[str, Tensor], Tensor]

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
    replace: See | None = None,
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
        long as the context is open, a value about to be overwritten in place is kept as a copy.

    Raises:
        UserError: when ``model`` is no module, or a compiled or scripted one.
    """
    held: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> Tensor:
        held[name] = value if replace is None else replace(name, value)
        return held[name]

    with watch(model, layers, see, held=held):
        yield held


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

    def see(name: str, value: Tensor) -> Tensor:
        names.append(name)
        return value

    with preserved(model, "eval", 0, x.device), torch.no_grad(), watch(model, layers, see) as watcher:
        model(x)
    watcher.selection.check(names, watcher.met)
    return names


@contextmanager
def watch(
    model: nn.Module, layers: LayerSelection, see: See, held: dict[str, Tensor] | None = None
) -> Iterator[Watcher]:
    """Call ``see`` on every selected layer while the context is open; what it returns takes the layer's place.

    Args:
        model: the network.
        layers: which layers.
        see: gets name and value.
        held: tensors to empty at each pass, and to copy before an in-place operation overwrites them.
    """
    root = user_module(model)
    watcher = Watcher(root, Selection(layers), see, {} if held is None else held)
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
class _Frame:
    """A module that is running: its name, and whether an activation function has already spoken for its output."""

    path: str
    module: nn.Module
    spoken: bool = False


class Watcher(TorchFunctionMode):
    """Follows the passes of one module; see `watch`.

    Attributes:
        paths: module -> name, of the modules followed.
        met: every name of the last pass, wanted or not.
    """

    def __init__(self, root: nn.Module, selection: Selection, see: See, held: dict[str, Tensor]) -> None:
        super().__init__()
        # What makes a weight (torch.nn.utils.parametrize) is no layer.
        self.paths = {m: path for path, m in root.named_modules() if "parametrizations" not in path.split(".")}
        self.root, self.selection, self.see, self.held = root, selection, see, held
        self.met: list[str] = []
        self._running: list[_Frame] = []
        self._calls: dict[str, int] = {}
        self._seeing = False
        self._graphs = torch.is_grad_enabled()

    def enter(self, module: nn.Module, args: Any) -> None:
        """Before a module runs."""
        if module is self.root:
            self._running.clear()
            self._calls.clear()
            self.met.clear()
            self.held.clear()
        elif not self._running:
            return  # a part of the network called on its own, as activation checkpointing does in the backward pass
        self._running.append(_Frame(self.paths[module], module))

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After a module has run, or has raised: its output, or what takes its place."""
        if not self._running or self._running[-1].module is not module:
            return None
        frame = self._running.pop()
        path = frame.path
        if module is self.root:
            if not is_learnable(module):
                return None
            path = type(module).__name__.lower()
        if frame.spoken:
            return None
        if isinstance(output, tuple) and type(output) is tuple and output:
            first = self._meet(path, module, output[0])
            return None if first is output[0] else (first, *output[1:])
        value = self._meet(path, module, output)
        return None if value is output else value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.held and _writes(name, kwargs):
            self._save(kwargs.get("out", args[0] if args else kwargs.get("input")))
        output = func(*args, **kwargs)
        kind = name.strip("_")
        if kind not in ACTIVATIONS or not self._running or self._seeing:
            return output
        frame = self._running[-1]
        if is_activation(frame.module) and frame.path and not frame.spoken:
            frame.spoken = True
            return self._meet(frame.path, frame.module, output, function=True)
        return self._meet(f"{frame.path}.{kind}" if frame.path else kind, None, output, function=True)

    def _meet(self, base: str, module: nn.Module | None, value: Any, function: bool = False) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        call = self._calls.get(base, 0)
        self._calls[base] = call + 1
        name = f"{base}#{call}" if call else base
        self.met.append(name)
        inside = any(frame.module is not module and chooses_steps(frame.module) for frame in self._running)
        if not self.selection.wants(name, module, function, inside):
            return value
        self._seeing = True
        # A network that takes gradients of its own has graphs where whoever watches has asked for none.
        shown = value if self._graphs or not value.requires_grad else value.detach()
        try:
            found = self.see(name, shown)
            return value if found is shown else found
        finally:
            self._seeing = False

    def _save(self, targets: Any) -> None:
        for target in targets if isinstance(targets, Iterable) and not isinstance(targets, Tensor) else (targets,):
            if not isinstance(target, Tensor) or target.layout != torch.strided:
                continue
            place = target.untyped_storage().data_ptr()
            for name, value in self.held.items():
                if value.untyped_storage().data_ptr() == place:
                    with torch.set_grad_enabled(value.requires_grad):
                        self.held[name] = value.clone()


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether the function called ``name`` overwrites one of its arguments."""
    return (
        (name.endswith("_") and not name.endswith("__"))
        or name in _WRITING_OPERATORS
        or bool(kwargs.get("inplace"))
        or kwargs.get("out") is not None
    )
