"""Follows the passes of a network: every module that runs, and every activation function that is called in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing import reductions
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from buttress.layers.places import Route, place, plain, route
from buttress.layers.select import (
    LayerSelection,
    Selection,
    activation_kind,
    chooses_steps,
    followed_modules,
    is_activation,
    is_learnable,
    is_opaque,
    user_module,
)

LayerCallback = Callable[[str, Tensor], Tensor]

_WeakStorage: Any = reductions.StorageWeakRef

_WRITING_OPERATORS = frozenset(
    (
        *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__", "__iand__"),
        *("__ior__", "__ixor__", "__ilshift__", "__irshift__", "__setitem__"),
    )
)


@contextmanager
def watch(
    model: nn.Module,
    layers: LayerSelection,
    callback: LayerCallback,
    values: dict[str, Tensor] | None = None,
    *,
    replaces: bool = False,
) -> Iterator[Watcher]:
    """Call ``callback`` on every selected layer while the context is open.

    What `torch.compile` has compiled runs as it was written meanwhile, for compiled code calls no Python.

    Args:
        model: the network.
        layers: which layers.
        callback: gets name and value.
        values: tensors to empty at each pass, and to copy before an in-place operation overwrites them.
        replaces: whether what the callback returns takes the place of the layer's value.
    """
    root = user_module(model)
    watcher = Watcher(root, Selection(layers), callback, {} if values is None else values, replaces)
    handles = []
    uncompiled = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    try:
        for module in watcher.paths:
            # By the class, for scripted modules refuse it; their hooks are called all the same.
            handles.append(nn.Module.register_forward_pre_hook(module, watcher.enter))
            handles.append(nn.Module.register_forward_hook(module, watcher.leave, always_call=True))
        with uncompiled, watcher:
            yield watcher
    finally:
        for handle in handles:
            handle.remove()
        watcher.forget()


@dataclass
class _RunningModule:
    """A module that is running.

    Attributes:
        path: its name.
        module: itself.
        place: where it was called from; see `place`.
        arguments: its tensors, and how often each had been written to.
        activated: whether an activation function was called in it.
        learnable_inside: whether a module with a weight ran in it.
    """

    path: str
    module: nn.Module
    place: tuple[int, ...] = ()
    arguments: tuple[tuple[Tensor, int], ...] = ()
    activated: bool = False
    learnable_inside: bool = False


@dataclass
class _Names:
    """The names given in one pass."""

    used: set[str] = field(default_factory=set)

    def give(self, base: str, numbers: tuple[int, ...]) -> str:
        """A name that no other call of this pass has: by its place in the code, then by how often that has run."""
        repeat = 0
        while True:
            parts = [*numbers, repeat] if repeat or not numbers else [*numbers]
            name = base if not any(parts) else f"{base}#{'.'.join(map(str, parts))}"
            if name not in self.used:
                self.used.add(name)
                return name
            repeat += 1


@dataclass(frozen=True)
class _Checkpointed:
    """Where activation checkpointing was called: what ran, and the way to there."""

    running: tuple[_RunningModule, ...]
    way: Route


class Watcher(TorchFunctionMode):
    """Follows the passes of one module; see `watch`.

    Attributes:
        paths: module -> name, of the modules followed.
        all_names: every name of the last pass, selected or not.
        calls: called with each torch function's name, its arguments, its result and the name of the module it runs in,
            where that is not one of torch's own; for `trace`.
        recomputing: whether the pass is one that activation checkpointing makes in the backward pass.
    """

    def __init__(
        self,
        root: nn.Module,
        selection: Selection,
        callback: LayerCallback,
        values: dict[str, Tensor],
        replaces: bool = False,
    ) -> None:
        super().__init__()
        self.paths = followed_modules(root)
        self.root, self.selection, self.callback, self.values = root, selection, callback, values
        self.replaces = replaces
        self.all_names: list[str] = []
        self.calls: Callable[[str, tuple[Any, ...], Any, str], None] | None = None
        self.recomputing = False
        self._running: list[_RunningModule] = []
        self._names = _Names()
        self._in_callback = False
        self._graphs = torch.is_grad_enabled()
        self._read: dict[int, tuple[Any, int, int]] = {}
        self._checkpointed: dict[Any, _Checkpointed | None] = {}
        self._recomputation: FrameType | None = None

    def forget(self) -> None:
        """Let go of everything that was seen."""
        self._read, self._checkpointed, self._recomputation = {}, {}, None

    def enter(self, module: nn.Module, args: Any) -> None:
        """Before a module runs."""
        numbers: tuple[int, ...] = ()
        if self._running:
            parent, way = self._running[-1].module, route(sys._getframe(1), 1)
            self._note_checkpoint(module, way)
            numbers = place(way.steps, _names_of(module, parent), parent)
        elif _in_backward_pass():
            way = route(sys._getframe(1), 1)
            known = self._checkpointed.get(way.steps[0].code if way.steps else module)
            if way.recomputing is None or known is None:
                return
            self._recompute(way)
            parent = known.running[-1].module
            numbers = place((*known.way.steps, *way.steps), _names_of(module, parent), parent)
        elif module is self.root:
            self._begin()
        else:
            return  # a part of the network called on its own
        arguments = tuple((arg, arg._version) for arg in args if isinstance(arg, Tensor) and not arg.is_inference())
        path = self.paths[module] if self._running or self.recomputing else ""
        self._running.append(_RunningModule(path, module, numbers, arguments))

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After a module has run, or has raised: its output, or what takes its place."""
        if not self._running or self._running[-1].module is not module:
            return None
        current = self._running.pop()
        learnable = is_learnable(module) and not current.learnable_inside
        if self._running:
            self._running[-1].learnable_inside |= learnable or current.learnable_inside
        path = current.path
        if module is self.root and not path:
            if not learnable and not (current.activated and is_activation(module)):
                return None
            path = type(module).__name__.lower()
        function = current.activated and is_activation(module)
        first, put = _first(output)
        value = self._read_output(
            path,
            current.place,
            module,
            first,
            function=function,
            learnable=learnable,
            in_place=any(first is arg and arg._version > version for arg, version in current.arguments),
        )
        return None if value is first else put(module, value)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0]
        writes = _writes(name, kwargs)
        if self.values and writes:
            self._save(kwargs.get("out", args[0] if args else kwargs.get("input")))
        kind = None if self._in_callback else activation_kind(name)
        in_place = writes and kind is not None and bool(args) and isinstance(args[0], Tensor)
        if in_place and self.replaces:
            # What autograd has saved of it must not change when a replacement is written there.
            args[0].copy_(func(args[0].clone(), *args[1:], **kwargs))
            output = args[0]
        else:
            output = func(*args, **kwargs)
        if self._in_callback:
            return output
        if self.calls is not None and self._running:
            self.calls(name, (*args, *kwargs.values()), output, self._running[-1].path)
        if kind is None:
            return output
        way = route(sys._getframe(1), 0)
        running, numbers = self._place(way, kind)
        if running is None:
            return output
        running.activated = True
        if is_activation(running.module):
            return output  # read when the module is left
        base = f"{running.path}.{kind}" if running.path else kind
        return self._read_output(base, numbers, None, output, function=True, in_place=in_place)

    def _begin(self) -> None:
        """A pass of the whole network begins."""
        self._running.clear()
        self._names = _Names()
        self.recomputing = False
        self.all_names.clear()
        self.values.clear()
        self.forget()

    def _place(self, way: Route, kind: str) -> tuple[_RunningModule | None, tuple[int, ...]]:
        """In which module an activation function runs, and from which place of its code it was called."""
        if way.recomputing is not None and way.steps:
            known = self._checkpointed.get(way.steps[0].code)
            if known is None or not _in_backward_pass():
                return None, ()
            self._recompute(way)
            running, steps = known.running[-1], (*known.way.steps, *way.steps)
            return running, place(steps, frozenset((plain(kind),)), running.module)
        if not self._running:
            return None, ()
        running = self._running[-1]
        self._note_checkpoint(None, way)
        return running, place(way.steps, frozenset((plain(kind),)), running.module)

    def _note_checkpoint(self, module: nn.Module | None, way: Route) -> None:
        """Remember what activation checkpointing will compute again, outside of the pass."""
        if way.checkpointed is None or self.recomputing:
            return
        key = module if way.checkpointed == len(way.steps) else way.steps[way.checkpointed].code
        known = _Checkpointed(tuple(self._running), Route(way.steps[: way.checkpointed]))
        before = self._checkpointed.setdefault(key, known)
        if before is not None and before.way.steps != known.way.steps:
            self._checkpointed[key] = None  # from two places: which of them computes again cannot be told

    def _recompute(self, way: Route) -> None:
        """Names begin anew with each computation that activation checkpointing makes."""
        self.recomputing = True
        if way.recomputing is not self._recomputation:
            self._recomputation, self._names = way.recomputing, _Names()

    def _read_output(
        self,
        base: str,
        numbers: tuple[int, ...],
        module: nn.Module | None,
        value: Any,
        *,
        function: bool = False,
        learnable: bool = False,
        in_place: bool = False,
    ) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        name = self._names.give(base, numbers)
        if not self.recomputing:
            self.all_names.append(name)
        inside = any(
            current.module is not module and (chooses_steps(current.module) or is_opaque(current.module))
            for current in self._running
        )
        if not self.selection.wants(name, module, function=function, learnable=learnable, inside=inside):
            return value
        if self._known(value) and not self.selection.names(name):
            return value
        in_place = in_place and self.replaces
        seen = value.clone() if in_place else value
        # A network that takes gradients of its own has graphs even where the caller disabled gradients.
        seen = seen if self._graphs or not value.requires_grad else seen.detach()
        self._in_callback = True
        try:
            replacement = self.callback(name, seen)
        finally:
            self._in_callback = False
        if replacement is seen or not self.replaces:
            return value
        if in_place:  # the network may go on with what it passed, and ignore what is returned
            value.copy_(replacement)
            replacement = value
        replacement = replacement.to(value.dtype)
        self._known(replacement)
        return replacement

    def _known(self, value: Tensor) -> bool:
        """Whether these very numbers were read before in this pass: a container's output is that of its last part."""
        if value.is_inference() or value.layout != torch.strided:
            return False
        storage = _WeakStorage(value.untyped_storage())
        found = (storage, value._version, value.numel())
        before = self._read.get(storage.cdata)
        self._read[storage.cdata] = found
        return before is not None and before[1:] == found[1:]

    def _save(self, targets: Any) -> None:
        for target in tree_leaves(targets):
            if not isinstance(target, Tensor) or target.layout != torch.strided:
                continue
            address = target.untyped_storage().data_ptr()
            for name, value in self.values.items():
                if value.untyped_storage().data_ptr() == address:
                    with torch.set_grad_enabled(value.requires_grad):
                        self.values[name] = value.clone()


def _in_backward_pass() -> bool:
    return torch._C._current_graph_task_id() != -1


def _names_of(module: nn.Module, parent: nn.Module) -> frozenset[str]:
    """The names by which the parent's code calls a module."""
    return frozenset(plain(name) for name, part in parent._modules.items() if part is module)


def _first(output: Any) -> tuple[Any, Callable[[nn.Module, Tensor], Any]]:
    """The value of what a module returns, the first tensor in it; and how another is put in its place."""
    if isinstance(output, Mapping):
        key = next((k for k, part in output.items() if isinstance(part, Tensor)), None)
        return output.get(key), lambda module, value: _with(output, key, value)
    if isinstance(output, list) and output:
        return output[0], lambda module, value: [value, *output[1:]]
    if type(output) is tuple and output:
        return output[0], lambda module, value: (value, *_states(module, value, output[0], output[1:]))
    return output, lambda module, value: value


def _with(output: Any, key: Any, value: Tensor) -> Any:
    changed = copy(output)
    changed[key] = value
    return changed


def _states(module: nn.Module, value: Tensor, before: Tensor, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """What else a module returns, with the last states of a recurrent layer taken from its new outputs."""
    if not isinstance(module, nn.RNNBase) or not rest:
        return rest
    single = before.dim() == 2  # no batch
    steps = value.transpose(0, 1) if module.batch_first and not single else value
    hidden = rest[0][0] if isinstance(rest[0], tuple) else rest[0]
    if bool(module.bidirectional):
        half = steps.shape[-1] // 2
        last = torch.stack([steps[-1, ..., :half], steps[0, ..., half:]])
    else:
        last = steps[-1][None]
    hidden = torch.cat([hidden[: len(hidden) - len(last)], last])
    return ((hidden, *rest[0][1:]) if isinstance(rest[0], tuple) else hidden, *rest[1:])


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether the function called ``name`` overwrites one of its arguments."""
    return (
        (name.endswith("_") and not name.endswith("__"))
        or name in _WRITING_OPERATORS
        or bool(kwargs.get("inplace"))
        or kwargs.get("out") is not None
    )
