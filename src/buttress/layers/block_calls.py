"""What goes into and comes out of a network's blocks in one pass, and each block as a function of what goes in."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_unflatten

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.block_records import Record, all_tensors, copied, first_numbers, record_calls
from buttress.layers.parameter_gradients import parameters_require_grad
from buttress.layers.precision import computes_in_single_precision, in_single_precision
from buttress.layers.rows import CONSTANT, PART, Layout, Unaligned, compared
from buttress.layers.same_numbers import SameNumbers, same_numbers


@dataclass(frozen=True)
class BlockCall:
    """One call of a block in a pass, in single precision also where the network computes in half.

    Attributes:
        module: the block; of one in half precision a copy in single precision, in which products with its Jacobian are
            exact enough.
        function: the block, of ``z`` and ``beside``. Every argument that holds numbers of ``z`` alone, as in
            ``attn(x, x, x)``, follows it: the same tensor, a view of it such as a transpose or a part, or a copy.
        z: (N, ...) the first argument of floating-point numbers with a part for each input, wherever it is among the
            positional and keyword arguments and what tuples, lists and dicts of these hold; the inputs first. Where
            several depend on the network's input and hold numbers of their own, as in ``attn(x + p, x + p, x)``, all of
            these side by side, (N, numbers): they move jointly, so that a block linear in two arguments, A a + B b, has
            the largest singular value of [A B], in the norm sqrt(|a|^2 + |b|^2). That is an upper bound of what moves
            these arguments together as the network does.
        beside: the other tensors (N, ...) with a part for each input, which do not depend on the input by a gradient
            and stay as they are; the inputs first. Where no gradient leads to any, those move whose numbers change with
            the input.
        joint: how many tensors ``z`` holds side by side.
        out: (N, ...) the first tensor of floating-point numbers that came out, the inputs first.
        alone: whether nothing goes in beside a ``z`` of one tensor, and no other tensor comes out.
        layout: where the inputs are in the argument that ``z`` is, or begins with, as the network has it.
    """

    module: nn.Module
    function: Callable[..., Tensor]
    z: Tensor
    beside: tuple[Tensor, ...]
    joint: int
    out: Tensor
    alone: bool
    layout: Layout

    @property
    def held(self) -> int:
        """How many other tensors of floating-point numbers go in, which the function takes as constant."""
        return sum(tensor.is_floating_point() for tensor in self.beside)


def block_of(name: str) -> str:
    """The name of the module of which a call has this name."""
    return name.partition("#")[0]


@in_usual_state
def block_calls(model: nn.Module, x: Tensor, names: Sequence[str], seed: int = 0) -> dict[str, BlockCall]:
    """What goes into and comes out of each block in one pass in eval mode, in the order of ``names``.

    A few small passes more tell where the inputs are in these tensors, see `rows`.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        names: of `block_names`: of a block's calls, by the names of layers.
        seed: of what a random network draws.

    Raises:
        UserError: for a block that does not take and give numbers with a part for each input.
    """
    calls, reasons = recorded_calls(model, x, names, seed)
    for name, reason in reasons.items():
        raise UserError(f"the block {name!r} {reason}: name another")
    return calls


def recorded_calls(
    model: nn.Module, x: Tensor, names: Sequence[str], seed: int = 0
) -> tuple[dict[str, BlockCall], dict[str, str]]:
    """As `block_calls`; of blocks that cannot be seen as functions of inputs' parts, by name, why not."""
    blocks = dict.fromkeys(block_of(name) for name in names)
    by_gradient: set[tuple[str, int]] = set()
    by_value: set[tuple[str, int]] = set()
    before: dict[tuple[str, int, torch.Size], Tensor] = {}

    def seen(some: Tensor, draw: int) -> dict[tuple[str, int], Tensor]:
        """With gradients, which tell what depends on the input; of what has none, numbers that change tell it."""
        with parameters_require_grad(model, False):
            given = some.detach().clone().requires_grad_(some.is_floating_point())
            records = record_calls(model, given, blocks, seed + draw)
        found = {(name, k): value for name, record in records.items() for k, value in record.tensors().items()}
        for place, value in found.items():
            if value.requires_grad:
                by_gradient.add(place)
            elif not torch.equal(before.setdefault((*place, value.shape), value), value):
                by_value.add(place)
        return found

    aligned = compared(seen, x)
    calls: dict[str, BlockCall] = {}
    reasons: dict[str, str] = {}
    with torch.no_grad():
        records = {name: one for name, one in record_calls(model, x, blocks, seed).items() if name in names}
    with preserved(model, "eval", seed, x.device), torch.no_grad():
        for name, record in records.items():
            if isinstance(aligned, Unaligned):
                reasons[name] = f"cannot be measured, for it {aligned.reason}"
                continue
            of_block = {place: _held(layout) for (block, place), layout in aligned.items() if block == name}
            dependent = [{k for block, k in found if block == name} for found in (by_gradient, by_value)]
            call = _call(record, of_block, dependent, len(x))
            if isinstance(call, BlockCall):
                calls[name] = call
            else:
                reasons[name] = call
    order = {name: position for position, name in enumerate(names)}
    reasons |= {name: "is not called" for name in names if name not in calls and name not in reasons}
    return dict(sorted(calls.items(), key=lambda entry: order[entry[0]])), reasons


def _call(
    record: Record, layouts: Mapping[int, Layout | Unaligned], dependent: Sequence[Container[int]], n: int
) -> BlockCall | str:
    """A block's call as a function of its inputs' parts, or why it is none.

    What moves are the tensors in the first of ``dependent`` that holds any that go in.
    """
    found = {k: layout for k, layout in layouts.items() if isinstance(layout, Layout)}
    leaves, out = record.leaves, first_numbers(record.output)
    numbers = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not any(k in found for k in numbers):
        return f"is given what {_reason(layouts[numbers[0]])}" if numbers else "is not given numbers"
    for k, layout in layouts.items():  # a tensor that all inputs have made together lets them depend on each other
        if k >= 0 and isinstance(layout, Unaligned) and layout != CONSTANT:
            return f"is given what {layout.reason}"
    if out is None or -1 not in found:
        return "does not give numbers" if out is None else f"gives what {_reason(layouts[-1])}"
    if not all(layout.fits(out if k < 0 else leaves[k], n) for k, layout in found.items()):
        return f"gets or gives what {PART.reason}"
    rows = {k: layout.to_rows(record.given[k], n) for k, layout in found.items() if k >= 0}
    own = next((some for moving in dependent if (some := [k for k in numbers if k in rows and k in moving])), [])
    if not own:
        return f"is given what {CONSTANT.reason}"
    moved = _followers(rows, own)
    beside = [k for k in rows if k not in moved]
    module = in_single_precision(record.module)
    leaves = [in_single_precision(leaf) for leaf in leaves]
    starts = {k: found[k].to_rows(leaves[k], n) for k, (start, _) in moved.items() if start == k}
    function = _function(module, record.spec, leaves, found, starts, moved, beside)
    parts, others = list(starts.values()), [found[k].to_rows(leaves[k], n) for k in beside]
    z = parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)
    if not computes_in_single_precision(lambda: function(z, *others)):
        return "computes in half precision inside, too coarse for products with its Jacobian"
    alone = not beside and len(parts) == 1 and len(all_tensors(record.output)) == 1
    rows_out = found[-1].to_rows(in_single_precision(out), n)
    return BlockCall(module, function, z, tuple(others), len(parts), rows_out, alone, found[next(iter(starts))])


def _followers(rows: Mapping[int, Tensor], own: Sequence[int]) -> dict[int, tuple[int, SameNumbers]]:
    """For each argument that moves the one whose numbers it holds, itself for one with numbers of its own, and where.

    Args:
        rows: by place, the arguments with the inputs first.
        own: the places of those that may have numbers of their own.
    """
    # The larger first, so that a part that comes before its whole follows it; else in their order.
    moved: dict[int, tuple[int, SameNumbers]] = {}
    for k in sorted(own, key=lambda k: -rows[k].numel()):
        if k not in moved:
            held = {other: where for other in rows if (where := same_numbers(rows[k], rows[other])) is not None}
            moved |= {other: (k, where) for other, where in held.items() if other not in moved}
    return dict(sorted(moved.items()))


def _held(layout: Layout | Unaligned) -> Layout | Unaligned:
    """How a block is given a tensor, be it a constant; one with entries of no input cannot be cut into inputs."""
    if isinstance(layout, Unaligned):
        return layout if layout.repeated is None else layout.repeated
    return PART if layout.of_none else layout


def _reason(layout: Layout | Unaligned) -> str:
    return layout.reason if isinstance(layout, Unaligned) else PART.reason


def _function(
    module: nn.Module,
    spec: TreeSpec,
    arguments: Sequence[Any],
    layouts: Mapping[int, Layout],
    starts: Mapping[int, Tensor],
    moved: Mapping[int, tuple[int, SameNumbers]],
    beside: Sequence[int],
) -> Callable[..., Tensor]:
    """The block, of the arguments in ``starts``, which those in ``moved`` follow, and of those in ``beside``.

    Of one argument as it is; of several side by side.
    """
    sizes = [rows[:1].numel() for rows in starts.values()]

    def apart(z: Tensor) -> dict[int, Tensor]:
        if len(sizes) == 1:
            return dict(zip(starts, [z.clone()], strict=True))
        parts = zip(starts.items(), torch.split(z, sizes, 1), strict=True)
        return {k: part.reshape(-1, *rows.shape[1:]).to(rows.dtype) for (k, rows), part in parts}

    def function(z: Tensor, *others: Tensor) -> Tensor:
        leaves = [leaf if k in layouts else copied(leaf) for k, leaf in enumerate(arguments)]  # it may write there
        parts = apart(z)
        own = {k: layouts[k].from_rows(part).contiguous() for k, part in parts.items()}
        for k, (start, where) in moved.items():
            same = where.same and layouts[k] == layouts[start]
            leaves[k] = own[start] if same else layouts[k].from_rows(where.read(parts[start])).contiguous()
        for k, tensor in zip(beside, others, strict=True):
            leaves[k] = layouts[k].from_rows(tensor.clone()).contiguous()
        args, kwargs = tree_unflatten(leaves, spec)
        out = first_numbers(module(*args, **kwargs))
        if out is None:
            raise UserError(f"a block gave a tensor in a pass and none now: {type(module).__name__}")
        return layouts[-1].to_rows(out, len(z))

    return function
