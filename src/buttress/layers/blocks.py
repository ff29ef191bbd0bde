"""A network as a chain of blocks: which they are, whether they follow one another, and their residual branches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise

import torch
from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.errors import UserError
from buttress.layers.block_calls import BlockCall, block_of
from buttress.layers.block_records import record_calls
from buttress.layers.capture import layer_names
from buttress.layers.same_rows import gap
from buttress.layers.select import user_module

_LISTS = (nn.ModuleList, nn.ModuleDict)  # they are never called
# Of the transformer blocks of timm: what comes before, the branch, and a scale after it.
_BRANCHES = (("norm1", "attn", "ls1"), ("norm2", "mlp", "ls2"))


@in_usual_state
def block_names(model: nn.Module, x: Tensor, blocks: str | Sequence[str] | None = None) -> list[str]:
    """The names of all calls of a network's blocks in order of execution: of ``b`` that is called twice, b and b#1.

    Args:
        model: the network.
        x: (N, ...) inputs that it can read.
        blocks: names or globs of submodules, all of whose calls are meant, or of calls; unless given, the children of
            the network, where a sequence of modules that have parts of their own counts as these modules. A network
            without children, or whose children hold none of its weights, is one block, "".

    Raises:
        UserError: for a name that no module has which is called with a tensor and gives one, and for none at all.
    """
    root = user_module(model)
    if blocks is None:
        wanted = set(_children(root, ""))
        held = any(True for child in root.children() for _ in child.parameters())
        if not wanted or (not held and any(True for _ in root.parameters())):
            return [""]
        with torch.no_grad():
            return list(record_calls(model, x, wanted)) or [""]
    given = [blocks] if isinstance(blocks, str) else list(blocks)
    modules = dict(root.named_modules(remove_duplicate=False))
    exact = [pattern for pattern in given if block_of(pattern) in modules]
    rest = [pattern for pattern in given if pattern not in exact]
    layers = layer_names(model, x, rest if exact else blocks) if rest or not given else []
    for name in layers:
        if block_of(name) not in modules:
            raise UserError(f"{name!r} is a function, and a block must be a module: name the module that calls it")
    with torch.no_grad():
        calls = record_calls(model, x, dict.fromkeys(block_of(name) for name in (*exact, *layers)))
    for pattern in exact:
        if not any(_matches(name, pattern) for name in calls):
            layer_names(model, x, [pattern])  # says which there are
    return [name for name in calls if name in layers or any(_matches(name, pattern) for pattern in given)]


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern means this call; without a number it means all calls of a block."""
    return fnmatchcase(name, pattern) or fnmatchcase(block_of(name), pattern)


def _children(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        deep = any(list(part.children()) for part in child.children())
        if isinstance(child, _LISTS) or (isinstance(child, nn.Sequential) and deep):
            yield from _children(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def is_chain(calls: Mapping[str, BlockCall]) -> bool:
    """Whether each block gets the very numbers that the one before gave and no others: nothing between or beside."""
    ordered = list(calls.values())
    alone = all(call.alone for call in ordered)
    return alone and all(
        a.out.numel() == b.z.numel() and torch.equal(a.out.flatten(), b.z.flatten()) for a, b in pairwise(ordered)
    )


def offers_branches(module: nn.Module) -> bool:
    """Whether a block says what its residual branches are, see `residual_branches`."""
    return callable(getattr(module, "branches", None)) or bool(_timm_branches(module))


def residual_branches(call: BlockCall) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """A block's residual branches in order, each with the point (N, ...) that it is added to.

    A block offers them by a method ``branches()``, name -> function of the tensor that the function's value is added
    to. Blocks in the form of timm's (norm1, attn, ls1; norm2, mlp, ls2) need not. None where these do not add up to
    what the block gives, or where several tensors move jointly.
    """
    if call.joint > 1:
        return {}
    own = getattr(call.module, "branches", None)
    functions: Mapping[str, Callable[[Tensor], Tensor]] = own() if callable(own) else _timm_branches(call.module)
    z, branches = call.z, {}
    with torch.no_grad():
        for name, function in functions.items():
            branches[name] = (_of_rows(function, call), z)
            z = z + branches[name][0](z)
        out = call.function(call.z, *call.beside) if branches else call.out
    return branches if branches and z.shape == out.shape and gap(z, out) <= 1e-4 else {}


def _of_rows(function: Callable[[Tensor], Tensor], call: BlockCall) -> Callable[[Tensor], Tensor]:
    """The branch as a function of tensors with the inputs first."""
    return lambda z: call.layout.to_rows(function(call.layout.from_rows(z)), len(z))


def _timm_branches(module: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    branches: dict[str, Callable[[Tensor], Tensor]] = {}
    for before, name, after in _BRANCHES:
        parts = [getattr(module, part, None) for part in (before, name, after)]
        if not all(isinstance(part, nn.Module) for part in parts[:2]):
            return {}
        branches[name] = nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))
    return branches
