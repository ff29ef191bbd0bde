"""What goes into and comes out of a network's blocks in one pass, and each block as a function of what goes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.select import user_module
from buttress.model_call import call_model


@dataclass(frozen=True)
class BlockCall:
    """One block's call in a pass.

    Attributes:
        function: the block, of ``z`` and ``beside``. Every argument that holds numbers of ``z`` alone, as in
            ``attn(x, x, x)``, follows it: the same tensor, a view of it such as a transpose or a part, or a copy.
        z: (N, ...) the first argument of floating-point numbers with one row to an input, wherever it is among the
            positional and keyword arguments and what tuples, lists and dicts of these hold.
        beside: the other tensors (N, ...) with one row to an input, which stay as they are.
        out: (N, ...) the first tensor of floating-point numbers that came out.
        alone: whether it was called once, with nothing beside ``z``, and gave no other tensor.
    """

    function: Callable[..., Tensor]
    z: Tensor
    beside: tuple[Tensor, ...]
    out: Tensor
    alone: bool

    @property
    def held(self) -> int:
        """How many other tensors of floating-point numbers go in, which the function takes as constant."""
        return sum(tensor.is_floating_point() for tensor in self.beside)


@in_usual_state
def block_calls(model: nn.Module, x: Tensor, names: Sequence[str], seed: int = 0) -> dict[str, BlockCall]:
    """What goes into and comes out of each block in one pass in eval mode, in the order of ``names``.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        names: of `block_names`.
        seed: of what a random network draws.

    Raises:
        UserError: for a block that does not take and give one row of numbers to an input.
    """
    calls, reasons = recorded_calls(model, x, names, seed)
    for name, reason in reasons.items():
        raise UserError(f"the block {name!r} {reason}: name another")
    return calls


def recorded_calls(
    model: nn.Module, x: Tensor, names: Sequence[str], seed: int = 0
) -> tuple[dict[str, BlockCall], dict[str, str]]:
    """As `block_calls`; of blocks that cannot be seen as functions of rows, by name, why not."""
    root = user_module(model)
    calls: dict[str, BlockCall | str] = {}
    arguments: dict[str, _Arguments] = {}

    def before(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name not in arguments:
                arguments[name] = _Arguments(args, kwargs, len(x))  # now: the block may write over them

        return record

    def after(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            earlier = calls.get(name)
            if earlier is None:
                calls[name] = arguments[name].call(module, output)
            elif isinstance(earlier, BlockCall):
                calls[name] = replace(earlier, alone=False)

        return record

    handles = []
    try:
        for name in names:
            module = root.get_submodule(name)
            handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
            handles.append(module.register_forward_hook(after(name), with_kwargs=True))
        with preserved(model, "eval", seed, x.device), torch.no_grad():
            call_model(model, x)
    finally:
        for handle in handles:
            handle.remove()
    found = {name: calls.get(name, "is not called") for name in names}
    return (
        {name: call for name, call in found.items() if isinstance(call, BlockCall)},
        {name: call for name, call in found.items() if isinstance(call, str)},
    )


class _Arguments:
    """The arguments of a call, its tensors copied, and which of them hold numbers of the one that is to move."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], count: int) -> None:
        given, self.spec = tree_flatten((args, kwargs))
        self.count = count
        rows = [k for k, leaf in enumerate(given) if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == count]
        self.at = next((k for k in rows if given[k].is_floating_point()), -1)
        self.leaves = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in given]
        self.places = {} if self.at < 0 else {k: _places(given[self.at], given[k]) for k in rows}
        self.beside = [k for k, places in self.places.items() if places is None]

    def call(self, module: nn.Module, output: Any) -> BlockCall | str:
        """The call that gave this output, or why it is none of rows."""
        if self.at < 0:
            return "is not called with one row of numbers to an input"
        out = _first(output)
        if out is None or not out.dim() or len(out) != self.count:
            return "does not give one row of numbers to an input"
        beside = tuple(self.leaves[k] for k in self.beside)
        alone = not beside and len(_tensors(output)) == 1
        return BlockCall(self._function(module), self.leaves[self.at], beside, out.detach().clone(), alone)

    def _function(self, module: nn.Module) -> Callable[..., Tensor]:
        def function(z: Tensor, *beside: Tensor) -> Tensor:
            leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]  # it may write there
            own = z.clone()
            for k, places in self.places.items():
                if places is not None:
                    leaves[k] = own if k == self.at or places.same else places.read(own)
            for k, tensor in zip(self.beside, beside, strict=True):
                leaves[k] = tensor.clone()
            args, kwargs = _call_of(leaves, self.spec)
            out = _first(module(*args, **kwargs))
            if out is None:
                raise UserError(f"a block gave a tensor in the network's pass, and none now: {type(module).__name__}")
            return out

        return function


@dataclass(frozen=True)
class _Places:
    """Where in a row of one tensor the numbers of another's row are.

    Attributes:
        index: (M,) places in a flattened row.
        shape: of the other's row.
        same: whether it is the same row.
    """

    index: Tensor
    shape: torch.Size
    same: bool

    def read(self, z: Tensor) -> Tensor:
        """(n, ...) the other tensor for these rows."""
        return z.flatten(1)[:, self.index].view(len(z), *self.shape)


def _places(z: Tensor, other: Tensor) -> _Places | None:
    """Where in ``z`` the numbers of ``other`` are, the same in every row; None where they are not all there.

    They are where both use the same memory, or where one is a copy: as many numbers, all equal and not all alike.
    """
    width, rows = z[:1].numel(), torch.arange(len(z), device=z.device)
    if z.dtype != other.dtype or z.device != other.device:
        return None
    here = torch.arange(width, device=z.device)
    if z.shape == other.shape and z.stride() == other.stride() and z.data_ptr() == other.data_ptr():
        return _Places(here, other.shape[1:], True)
    if z.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
        memory = torch.arange(z.untyped_storage().nbytes() // z.element_size(), device=z.device)
        place = torch.full_like(memory, -1)
        place[_in_memory(memory, z).flatten()] = torch.arange(z.numel(), device=z.device)
        index = place[_in_memory(memory, other)].flatten(1) - width * rows[:, None]
        inside = bool(((index >= 0) & (index < width) & (index == index[:1])).all())
        return _Places(index[0], other.shape[1:], False) if inside else None
    if z.shape == other.shape and torch.equal(z, other) and bool((z != z.flatten()[0]).any()):
        return _Places(here, other.shape[1:], True)
    return None


def _in_memory(memory: Tensor, view: Tensor) -> Tensor:
    """Of each number of a view, its place in the storage."""
    return memory.as_strided(view.shape, view.stride(), view.storage_offset())


def _call_of(leaves: list[Any], spec: TreeSpec) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = tree_unflatten(leaves, spec)
    return args, kwargs


def _tensors(values: Any) -> list[Tensor]:
    leaves: Iterable[Any] = tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _first(output: Any) -> Tensor | None:
    return next((tensor for tensor in _tensors(output) if tensor.is_floating_point()), None)
