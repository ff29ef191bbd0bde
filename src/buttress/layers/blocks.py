"""A network as a chain of blocks: which they are, what goes in and comes out, and their residual branches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.capture import layer_names
from buttress.layers.select import user_module
from buttress.model_call import call_model

_CONTAINERS = (nn.Sequential, nn.ModuleList)
# Of the transformer blocks of timm: what comes before, the branch, and a scale after it.
_BRANCHES = (("norm1", "attn", "ls1"), ("norm2", "mlp", "ls2"))


@in_usual_state
def block_names(model: nn.Module, x: Tensor, blocks: str | Sequence[str] | None = None) -> list[str]:
    """The names of a network's blocks in order of execution.

    Args:
        model: the network.
        x: (N, ...) inputs that it can read.
        blocks: names or globs of submodules; unless given, the children of the network, where a sequence of modules
            that have parts of their own counts as these modules. A network without children, or whose children hold
            none of its weights, is one block, "".

    Raises:
        UserError: for a name that no module has which is called with a tensor and gives one, and for none at all.
    """
    root = user_module(model)
    if blocks is None:
        wanted = set(_children(root, ""))
        held = any(True for child in root.children() for _ in child.parameters())
        if not wanted or (not held and any(True for _ in root.parameters())):
            return [""]
        return _first_calls(layer_names(model, x, lambda name, module: name in wanted))
    names = layer_names(model, x, blocks)
    modules = dict(root.named_modules())
    for name in names:
        if name.partition("#")[0] not in modules:
            raise UserError(f"{name!r} is a function, and a block must be a module: name the module that calls it")
    return _first_calls(names)


def _first_calls(names: Sequence[str]) -> list[str]:
    """Each module at its first call."""
    return [name for name in names if "#" not in name]


def _children(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        deep = any(list(part.children()) for part in child.children())
        if isinstance(child, nn.ModuleList) or (isinstance(child, _CONTAINERS) and deep):
            yield from _children(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@dataclass(frozen=True)
class BlockCall:
    """One block's call in a pass.

    Attributes:
        function: the block, of its first argument.
        z: that argument, (N, ...).
        out: what came out, (N, ...).
        alone: whether it was called once, with no other tensor, and gave no other.
    """

    function: Callable[[Tensor], Tensor]
    z: Tensor
    out: Tensor
    alone: bool


@in_usual_state
def block_calls(model: nn.Module, x: Tensor, names: Sequence[str], seed: int = 0) -> dict[str, BlockCall]:
    """What goes into and comes out of each block in one pass in eval mode, in the order of ``names``.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        names: of `block_names`.
        seed: of what a random network draws.
    """
    root = user_module(model)
    calls: dict[str, BlockCall] = {}

    def after(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if name in calls:
                calls[name] = replace(calls[name], alone=False)
            elif args and isinstance(args[0], Tensor):
                alone = not _tensors((*args[1:], *kwargs.values())) and len(_tensors([output])) == 1
                out = _first(output).detach().clone()
                calls[name] = BlockCall(_function(module, args[1:], kwargs), inputs[name], out, alone)

        return record

    def before(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in inputs and args and isinstance(args[0], Tensor):
                inputs[name] = args[0].detach().clone()  # now: the block may overwrite it

        return record

    inputs: dict[str, Tensor] = {}
    handles = []
    try:
        for name in names:
            module = root.get_submodule(name)
            handles.append(module.register_forward_pre_hook(before(name)))
            handles.append(module.register_forward_hook(after(name), with_kwargs=True))
        with preserved(model, "eval", seed, x.device), torch.no_grad():
            call_model(model, x)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if name not in calls:
            raise UserError(f"the block {name!r} is not called with a tensor first: name another")
        call = calls[name]
        numbers = call.z.is_floating_point() and call.out.is_floating_point()
        if not numbers or {len(call.z), len(call.out)} != {len(x)}:
            raise UserError(f"the block {name!r} does not take and give one row of numbers to an input: name another")
    return {name: calls[name] for name in names}


def _function(module: nn.Module, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    return lambda z: _first(module(z.clone(), *rest, **kwargs))  # it may write there


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(list(values)) if isinstance(leaf, Tensor)]


def _first(output: Any) -> Tensor:
    first: Tensor = output[0] if isinstance(output, tuple | list) else output
    return first


def is_chain(calls: Mapping[str, BlockCall]) -> bool:
    """Whether each block gets the very numbers that the one before gave and no others: nothing between or beside."""
    ordered = list(calls.values())
    alone = all(call.alone for call in ordered)
    return alone and all(
        a.out.numel() == b.z.numel() and torch.equal(a.out.flatten(), b.z.flatten()) for a, b in pairwise(ordered)
    )


def residual_branches(module: nn.Module, call: BlockCall) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """A block's residual branches in order, each with the point (N, ...) that it is added to.

    A block offers them by a method ``branches()``, name -> function of the tensor that the function's value is added
    to. Blocks in the form of timm's (norm1, attn, ls1; norm2, mlp, ls2) need not. None where these do not add up to
    what the block gives.
    """
    own = getattr(module, "branches", None)
    functions: Mapping[str, Callable[[Tensor], Tensor]] = own() if callable(own) else _timm_branches(module)
    z, branches = call.z, {}
    with torch.no_grad():
        for name, function in functions.items():
            branches[name] = (function, z)
            z = z + function(z)
    same = bool(branches) and z.shape == call.out.shape and torch.allclose(z, call.out, rtol=1e-4, atol=1e-5)
    return branches if same else {}


def _timm_branches(module: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    branches: dict[str, Callable[[Tensor], Tensor]] = {}
    for before, name, after in _BRANCHES:
        parts = [getattr(module, part, None) for part in (before, name, after)]
        if not all(isinstance(part, nn.Module) for part in parts[:2]):
            return {}
        branches[name] = nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))
    return branches
