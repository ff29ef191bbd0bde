"""Follows the passes of a network: every module that runs, and every activation function that is called in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import lru_cache
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn, overrides
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from buttress.errors import UserError
from buttress.layers.graph import next_number
from buttress.layers.module_names import ModuleNames
from buttress.layers.outputs import first_tensor, is_wrapped
from buttress.layers.places import Names, Place, Places, Route, Step, route
from buttress.layers.read_values import ReadValues
from buttress.layers.running import Checkpointed, RunningModule
from buttress.layers.select import (
    LayerSelection,
    Selection,
    activation_kind,
    chooses_steps,
    is_activation,
    is_learnable,
    is_opaque,
    user_module,
)
from buttress.layers.targets import Target, plain

LayerCallback = Callable[[str, Tensor], Tensor]

_modes: Any = overrides._get_current_function_mode_stack

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


class Watcher(TorchFunctionMode):
    """Follows the passes of one module; see `watch`.

    Attributes:
        paths: module -> name, of the modules followed.
        places: every name of the last pass, selected or not -> where it is called, in the order of execution.
        calls: called with each torch function's name, its arguments, its result, the name of the module it runs in and
            the autograd graph's next number before; for `trace`.
        recomputing: whether the pass is one that activation checkpointing makes in the backward pass.
        uncertain: names, without what follows #, of layers that are not recognised when they are computed again: what
            checkpointed code calls outside of a module, or several times.
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
        self._modules = ModuleNames(root)
        self.paths = self._modules.paths
        self.root, self.selection, self.callback, self.values = root, selection, callback, values
        self.replaces = replaces
        self.places: dict[str, Place] = {}
        self.calls: Callable[[str, tuple[Any, ...], Any, str, int], None] | None = None
        self.recomputing = False
        self.uncertain: set[str] = set()
        self._running: list[RunningModule] = []
        self._names, self._places = Names(), Places()
        self._parts: dict[nn.Module, dict[nn.Module, frozenset[Target]]] = {}  # of a parent, by which names it has them
        self._in_callback = False
        self._graphs = torch.is_grad_enabled()
        self._read = ReadValues()
        self._checkpointed: dict[Any, Checkpointed | None] = {}
        self._checkpointed_names: set[Place] = set()
        self._recomputation: FrameType | None = None
        self._resumed = ExitStack()

    @property
    def all_names(self) -> list[str]:
        """Every name of the last pass, selected or not."""
        return [*self.places]

    def forget(self) -> None:
        """Let go of everything that was seen."""
        self._read = ReadValues()
        self._checkpointed, self._checkpointed_names, self._recomputation = {}, set(), None

    def enter(self, module: nn.Module, args: Any) -> None:
        """Before a module runs."""
        numbers: tuple[int, ...] = ()
        above: tuple[RunningModule, ...] = tuple(self._running)
        checkpointed = False
        if self._running:
            parent = self._running[-1]
            way = route(sys._getframe(1), 1, parent.module)
            self._note_checkpoint(module, way)
            numbers = self._numbers(way.steps, module, parent.module)
            checkpointed = parent.checkpointed or way.checkpointed is not None
        elif _in_backward_pass():
            way = route(sys._getframe(1), 1, None)
            known = self._checkpointed.get(way.steps[0].code if way.steps else module)
            if way.recomputing is None or known is None:
                return
            self._resume(way)
            above = known.running
            numbers = self._numbers((*known.steps, *way.steps), module, above[-1].module)
        elif module is self.root:
            self._begin()
        else:
            return  # a part of the network called on its own
        arguments = tuple((arg, arg._version) for arg in args if isinstance(arg, Tensor) and not arg.is_inference())
        path = self._modules.of(module, above) if above else ""
        outer = above[-1].inside if above else ()
        self._running.append(RunningModule(path, module, numbers, outer, arguments, checkpointed=checkpointed))

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After a module has run, or has raised: its output, or what takes its place."""
        if not self._running or self._running[-1].module is not module:
            return None
        current = self._running.pop()
        if not self._running:
            self._resumed.close()
        learnable = is_learnable(module) and not current.learnable_inside
        if self._running:
            self._running[-1].learnable_inside |= learnable or current.learnable_inside
        path = current.path
        if module is self.root and not path:
            if not learnable and not (current.activated and is_activation(module)):
                return None
            path = type(module).__name__.lower()
        function = current.activated and is_activation(module)
        first, put = first_tensor(output)
        value = self._read_output(
            Place(path, current.numbers, current.outer),
            module,
            first,
            function=function,
            learnable=learnable,
            checkpointed=current.checkpointed,
            in_place=any(first is arg and arg._version > version for arg, version in current.arguments),
        )
        return None if value is first else put(module, value)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self._of_functions(func, args, kwargs)
        name, kind, writes = _facts(getattr(func, "__name__", ""))
        writes = writes or bool(kwargs.get("inplace")) or kwargs.get("out") is not None
        if self.values and writes:
            self._save(kwargs.get("out", args[0] if args else kwargs.get("input")))
        if self._in_callback:
            return func(*args, **kwargs)
        first = next_number() if self.calls is not None else 0
        in_place = writes and kind is not None and bool(args) and isinstance(args[0], Tensor)
        if in_place and self.replaces:
            # What autograd has saved of it must not change when a replacement is written there.
            args[0].copy_(func(args[0].clone(), *args[1:], **kwargs))
            output = args[0]
        else:
            output = func(*args, **kwargs)
        if self.calls is not None and self._running:
            self.calls(name, (*args, *kwargs.values()), output, self._running[-1].path, first)
        if kind is None or not self._running:
            return output
        running = self._running[-1]
        way = route(sys._getframe(1), 0, running.module)
        running.activated = True
        if is_activation(running.module):
            return output  # read when the module is left
        base = f"{running.path}.{kind}" if running.path else kind
        numbers = self._places.of(way.steps, frozenset((plain(kind),)), running.module)
        if way.checkpointed is not None:
            self.uncertain.add(base)
        place = Place(base, numbers, running.inside)
        return self._read_output(
            place, None, output, function=True, in_place=in_place, checkpointed=running.checkpointed
        )

    def _of_functions(self, operator: HigherOrderOperator, args: Any, kwargs: Any) -> Any:
        """Run an operator that is given functions, as `torch.cond` and `scan` are; eager torch would compile it."""
        if operator is torch.ops.higher_order.cond and not kwargs:
            condition, when_true, when_false, operands = args
            with self:  # the branch that is taken is seen as it was written
                return (when_true if condition else when_false)(*operands)
        try:
            return operator(*args, **kwargs)
        except AssertionError as error:
            raise UserError(
                f"layers of a network that calls torch's {operator.__name__} cannot be seen, for it runs compiled "
                "alone: write it as a loop in Python"
            ) from error

    def _begin(self) -> None:
        """A pass of the whole network begins."""
        self._running.clear()
        self._names = Names()
        self.recomputing = False
        self.uncertain.clear()
        self.places.clear()
        self.values.clear()
        self.forget()

    def _numbers(self, steps: tuple[Step, ...], module: nn.Module, parent: nn.Module) -> tuple[int, ...]:
        """From which of several places of the parent's code a module was called."""
        if not steps:
            return ()
        if parent not in self._parts:
            self._parts[parent] = {}
            for name, part in parent._modules.items():
                if part is not None:
                    self._parts[parent][part] = self._parts[parent].get(part, frozenset()) | {plain(name)}
        return self._places.of(steps, self._parts[parent].get(module, frozenset()) | {module}, parent)

    def _note_checkpoint(self, module: nn.Module, way: Route) -> None:
        """Remember what activation checkpointing will compute again, outside of the pass."""
        if way.checkpointed is None or self.recomputing:
            return
        key = module if way.checkpointed == len(way.steps) else way.steps[way.checkpointed].code
        steps = self._places.kept(way.steps[: way.checkpointed], self._running[-1].module)
        known = Checkpointed(tuple(self._running), steps)
        before = self._checkpointed.setdefault(key, known)
        if before is not None and before.steps != known.steps:
            self._checkpointed[key] = None  # from two places: which of them computes again cannot be told

    def _resume(self, way: Route) -> None:
        """Follow what activation checkpointing computes again; names begin anew with each such computation."""
        self.recomputing = True
        if way.recomputing is not self._recomputation:
            self._recomputation, self._names = way.recomputing, Names()
        if self not in _modes():
            self._resumed.enter_context(self)  # torch leaves modes for the time of a backward pass

    def _read_output(
        self,
        place: Place,
        module: nn.Module | None,
        value: Any,
        *,
        function: bool = False,
        learnable: bool = False,
        in_place: bool = False,
        checkpointed: bool = False,
    ) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or is_wrapped(value):
            return value
        within = place._replace(depth=len(self._running) - len({current.module for current in self._running}))
        name = self._names.give(within)
        if not self.recomputing:
            self.places[name] = within
        if checkpointed:
            if place in self._checkpointed_names:
                self.uncertain.add(place.base)
            self._checkpointed_names.add(place)
        inside = any(
            current.module is not module and (chooses_steps(current.module) or is_opaque(current.module))
            for current in self._running
        )
        if not self.selection.wants(name, module, function=function, learnable=learnable, inside=inside):
            return value
        if self._read.known(value) and not self.selection.names(name):
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
        self._read.known(replacement)
        return replacement

    def _save(self, targets: Any) -> None:
        for target in tree_leaves(targets):
            if not isinstance(target, Tensor) or target.layout != torch.strided or is_wrapped(target):
                continue
            address = target.untyped_storage().data_ptr()
            for name, value in self.values.items():
                if value.untyped_storage().data_ptr() == address:
                    with torch.set_grad_enabled(value.requires_grad):
                        self.values[name] = value.clone()


def _in_backward_pass() -> bool:
    return torch._C._current_graph_task_id() != -1


@lru_cache(maxsize=4096)
def _facts(function: str) -> tuple[str, str | None, bool]:
    """Of a torch function: its name without an overload's, its activation, and whether it overwrites an argument."""
    name = function.partition(".")[0]
    writes = (name.endswith("_") and not name.endswith("__")) or name in _WRITING_OPERATORS
    return name, activation_kind(name), writes
