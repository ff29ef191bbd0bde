"""Follows the passes of a network: every module that runs, and every activation function that is called in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn, overrides
from torch._ops import HigherOrderOperator
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from buttress.layers.functions import facts, run_operator
from buttress.layers.graph import next_number
from buttress.layers.module_names import ModuleNames
from buttress.layers.network_code import NetworkCode, given_or_new
from buttress.layers.outputs import first_tensor, is_wrapped
from buttress.layers.overwritten import keep_overwritten
from buttress.layers.places import Names, Place, Places, route
from buttress.layers.read_values import ReadValues
from buttress.layers.running import RunningModule, Site
from buttress.layers.select import (
    LayerSelection,
    Selection,
    chooses_steps,
    is_activation,
    is_learnable,
    is_opaque,
    user_module,
)
from buttress.layers.targets import plain

LayerCallback = Callable[[str, Tensor], Tensor]

_unwatched: Any = torch._C.DisableTorchFunction  # for questions of our own, which are no part of the pass
_modes: Any = overrides._get_current_function_mode_stack
_saving_hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks


@contextmanager
def watch(
    model: nn.Module,
    layers: LayerSelection,
    callback: LayerCallback,
    values: dict[str, Tensor] | None = None,
    *,
    replaces: bool = False,
    code: NetworkCode | None = None,
) -> Iterator[Watcher]:
    """Call ``callback`` on every selected layer while the context is open.

    What `torch.compile` has compiled runs as it was written meanwhile, for compiled code calls no Python.

    Args:
        model: the network.
        layers: which layers.
        callback: gets name and value.
        values: tensors to empty at each pass, and to copy before an in-place operation overwrites them.
        replaces: whether what the callback returns takes the place of the layer's value.
        code: what has been read of the network's code; read anew unless given.
    """
    root = user_module(model)
    places = given_or_new(code).places(root)
    watcher = Watcher(root, Selection(layers, root), callback, {} if values is None else values, places, replaces)
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
        sites: every name of the last pass -> the very calls in the code that led to it; see `RunningModule`.
        calls: called with each torch function's name, its arguments, its result, the name of the module it runs in and
            the autograd graph's next number before; for `trace`.
    """

    def __init__(
        self,
        root: nn.Module,
        selection: Selection,
        callback: LayerCallback,
        values: dict[str, Tensor],
        places: Places,
        replaces: bool,
    ) -> None:
        super().__init__()
        self._modules = ModuleNames(root)
        self.paths = self._modules.paths
        self.root, self.selection, self.callback, self.values = root, selection, callback, values
        self.replaces = replaces
        self.places: dict[str, Place] = {}
        self.sites: dict[str, Site] = {}
        self.calls: Callable[[str, tuple[Any, ...], Any, str, int], None] | None = None
        self._running: list[RunningModule] = []
        self._names, self._places = Names(), places
        self._in_callback = self._resting = False
        self._graphs = torch.is_grad_enabled()
        self._read = ReadValues()

    def forget(self) -> None:
        """Let go of everything that was seen."""
        self._places.forget_values()
        self._read = ReadValues()

    def rest(self) -> None:
        """Nothing more is wanted of this pass."""
        self._resting = True

    @property
    def all_names(self) -> list[str]:
        """Every name of the last pass, selected or not."""
        return [*self.places]

    def enter(self, module: nn.Module, args: Any) -> None:
        """Before a module runs."""
        numbers: tuple[int, ...] = ()
        site: Site = ()
        if self._running:
            if self._resting:
                return
            parent = self._running[-1]
            steps = route(sys._getframe(1), 1, parent.module)
            site, numbers = parent.site_of(steps), self._places.of_module(steps, module, parent.module)
        elif module is self.root and not _in_backward_pass():
            self._begin()
        else:
            return  # a part of the network called on its own, or computed again for a backward pass
        with _unwatched():
            arguments = tuple((arg, arg._version) for arg in args if isinstance(arg, Tensor) and not arg.is_inference())
        path = self._modules.of(module, self._running) if self._running else ""
        outer = self._running[-1].inside if self._running else ()
        self._running.append(RunningModule(path, module, numbers, outer, arguments, site=site))

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After a module has run, or has raised: its output, or what takes its place."""
        if not self._running or self._running[-1].module is not module:
            return None
        current = self._running.pop()
        if self._resting:
            return None
        with _unwatched():
            learnable = is_learnable(module) and not current.learnable_inside
            first, put = first_tensor(output)
            in_place = any(first is arg and arg._version > version for arg, version in current.arguments)
        if self._running:
            self._running[-1].learnable_inside |= learnable or current.learnable_inside
        function = current.activated and is_activation(module)
        if module is self.root and not current.path:
            if not learnable and not function:
                return None
            current.path = type(module).__name__.lower()
        value = self._read_output(current, first, module, function=function, learnable=learnable, in_place=in_place)
        return None if value is first else put(module, value)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._resting and not isinstance(func, HigherOrderOperator):
            return self._run(func, args, kwargs or {})
        name, kind, writes = facts(getattr(func, "__name__", ""))
        if kwargs:
            writes = writes or bool(kwargs.get("inplace")) or kwargs.get("out") is not None
        elif kind is None and not writes and self.calls is None and not isinstance(func, HigherOrderOperator):
            return self._run(func, args, {})  # most of what runs
        else:
            kwargs = {}
        if isinstance(func, HigherOrderOperator):
            return run_operator(self, func, args, kwargs)
        if self.values and writes:
            keep_overwritten(self.values, kwargs.get("out", args[0] if args else kwargs.get("input")))
        if self._in_callback:
            return func(*args, **kwargs)
        first = next_number() if self.calls is not None else 0
        if writes and not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        in_place = writes and kind is not None
        if in_place and self.replaces and kwargs.get("out") is None:
            # What autograd has saved of it must not change when a replacement is written there.
            args[0].copy_(self._run(func, (args[0].clone(), *args[1:]), kwargs))
            output = args[0]
        else:
            output = self._run(func, args, kwargs)
        if self.calls is not None and self._running:
            self.calls(name, (*args, *kwargs.values()), output, self._running[-1].path, first)
        if kind is None or not self._running:
            return output
        running = self._running[-1]
        steps = route(sys._getframe(1), 0, running.module)
        running.activated = True
        if is_activation(running.module):
            return output  # read when the module is left
        base = f"{running.path}.{kind}" if running.path else kind
        numbers = self._places.of(steps, frozenset((plain(kind),)), running.module)
        called = RunningModule(base, running.module, numbers, running.inside, site=running.site_of(steps))
        return self._read_output(called, output, None, function=True, learnable=False, in_place=in_place)

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a function; of what follows from a replaced value nothing is computed again for a backward pass.

        In a checkpoint that is not reentrant the hooks on top say so to autograd, whose place others take here.
        """
        if not self.replaces or not torch.is_grad_enabled() or _saving_hooks(False) is None:
            return func(*args, **kwargs)
        with saved_tensors_hooks(_as_it_is, _as_it_is):
            return func(*args, **kwargs)

    def _begin(self) -> None:
        """A pass of the whole network begins."""
        self._resting = False
        self._running.clear()
        self._names = Names()
        self.places.clear()
        self.sites.clear()
        self.values.clear()
        self._read = ReadValues()

    def _read_output(
        self,
        current: RunningModule,
        value: Any,
        module: nn.Module | None,
        *,
        function: bool,
        learnable: bool,
        in_place: bool,
    ) -> Any:
        """What a module or an activation function gave, or what takes its place.

        Args:
            current: what has run.
            value: that.
            module: the module; None for a function.
            function: see `Selection.wants`, this and the next.
            learnable: see there.
            in_place: whether it was written over what it was computed from.
        """
        with _unwatched():
            if not isinstance(value, Tensor) or not value.is_floating_point() or is_wrapped(value):
                return value
            name = self._named(current)
            running = (above.module for above in self._running if above.module is not module)
            inside = any(chooses_steps(above) or is_opaque(above) for above in running)
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
            with _differentiable() if self.replaces and self._graphs else nullcontext():
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

    def _named(self, current: RunningModule) -> str:
        """The name of what has run."""
        place = Place(current.path, current.numbers, current.outer)
        within = place._replace(depth=len(self._running) - len({above.module for above in self._running}))
        name = self._names.give(within)
        self.places[name] = within
        self.sites[name] = current.site
        return name


def _as_it_is(value: Tensor) -> Tensor:
    return value


@contextmanager
def _differentiable() -> Iterator[None]:
    """With gradients, whatever the network has switched off where it computes the value: what follows may have one."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _in_backward_pass() -> bool:
    return torch._C._current_graph_task_id() != -1
