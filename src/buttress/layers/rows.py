"""Which part of a layer's value belongs to which input: the axis that grows with the number of inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import Mode, preserved
from buttress.errors import UserError
from buttress.layers.capture import capture
from buttress.layers.select import LayerSelection
from buttress.model_call import call_model
from buttress.random import derive, seed_torch

_SIZES = ((2, 3), (2, 4), (1, 2))  # numbers of inputs compared; the next where a network refuses these
_Key = TypeVar("_Key", bound=Hashable)
_CLOSE = 1e-3  # of a value's largest number: one input's part, computed beside others


@dataclass(frozen=True)
class Layout:
    """Where the inputs are in a layer's value.

    Attributes:
        axis: the one that grows with their number.
        dims: how many axes there are.
        each: how many entries of that axis an input has: more than one where time, windows or heads are folded into it.
        apart: whether those of one input lie apart, the inputs in between, and not in a run.
    """

    axis: int
    dims: int
    each: int = 1
    apart: bool = False

    def fits(self, value: Tensor, n: int) -> bool:
        """Whether a value can be that of n inputs."""
        if n == 1 and value.dim() == self.dims - 1:
            return True  # squeezed
        return value.dim() == self.dims and value.shape[self.axis] == n * self.each

    def to_rows(self, value: Tensor, n: int) -> Tensor:
        """(n, ...) a layer's value for n inputs, the inputs first."""
        if value.dim() == self.dims - 1:
            value = value.unsqueeze(self.axis)
        value = value.movedim(self.axis, 0)
        if self.each == 1:
            return value
        if self.apart:
            return value.reshape(self.each, n, *value.shape[1:]).transpose(0, 1)
        return value.reshape(n, self.each, *value.shape[1:])

    def in_place_of(self, value: Tensor, rows: Tensor) -> Tensor:
        """These rows as the network has ``value``, squeezed or not: a copy, which the network may write over."""
        return self.from_rows(rows).reshape(value.shape).clone()

    def from_rows(self, rows: Tensor) -> Tensor:
        """The value as the network has it, of what `to_rows` gives."""
        if self.each > 1:
            rows = (rows.transpose(0, 1) if self.apart else rows).flatten(0, 1)
        return rows.movedim(0, self.axis)


@dataclass(frozen=True)
class Unaligned:
    """A layer whose value for several inputs does not fall into a part for each.

    Attributes:
        reason: why, to follow the layer's name.
        one_at_a_time: whether it has a value for an input that is computed alone.
    """

    reason: str
    one_at_a_time: bool


CONSTANT = Unaligned("does not depend on the input", False)
_MIXED = Unaligned("relates inputs to each other: several of its axes grow with their number", False)
FIXED = Unaligned("is in a network that takes batches of one size only, so the axis of inputs cannot be found", False)
_FOLDED = Unaligned("holds several values for each input, in an order that cannot be told", False)
_WHOLE = Unaligned("is one value of all inputs together, as a mean over them is", False)
PART = Unaligned("is computed for a part of the inputs, and not alone for any", True)


@in_usual_state
def layouts(
    model: nn.Module, x: Tensor, layers: LayerSelection = "activations", *, seed: int = 0
) -> dict[str, Layout | Unaligned]:
    """Where the inputs are in each layer's value, found by passes in eval mode of two and of three inputs.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs, of which the first are used.
        layers: which layers; those alone are answered for which these inputs call.
        seed: of what a random network draws.
    """
    found = compared(lambda some: _values(model, some, layers, seed), x)
    if found is not None:
        return found
    with preserved(model, "eval", seed, x.device), torch.no_grad(), capture(model, layers) as values:
        call_model(model, x)
    return dict.fromkeys(values, FIXED)


def compared(read: Callable[[Tensor], Mapping[_Key, Tensor]], x: Tensor) -> dict[_Key, Layout | Unaligned] | None:
    """Where the inputs are in each of the tensors that ``read`` gives of a pass of some inputs.

    Args:
        read: what is seen in a pass of (n, ...) inputs; may raise where the network takes no such batch.
        x: (N, ...) inputs, of which the first are used.

    Returns:
        By the keys of what was read; None of a network that takes batches of one size only.
    """
    for few, more in _SIZES:
        try:
            one, other = (read(_distinct(x, n)) for n in (few, more))
        except (RuntimeError, ValueError, IndexError, AssertionError):
            continue  # it takes no such batches
        return {
            key: _layout(one[key], few, other[key], more) if key in one and key in other else PART
            for key in dict.fromkeys((*other, *one))
        }
    return None


def layout_of(read: Callable[[Tensor], Tensor], x: Tensor, what: str) -> Layout:
    """Where the inputs are in the tensor that ``read`` gives of a pass; see `compared`.

    Args:
        read: gives the tensor for (n, ...) inputs.
        x: (N, ...) inputs, of which the first are used.
        what: the tensor, for the error line.

    Raises:
        UserError: where it has no part for each input.
    """
    found = compared(lambda some: {what: read(some)}, x)
    return of_inputs(what, FIXED if found is None else found[what])


def of_inputs(what: str, layout: Layout | Unaligned) -> Layout:
    """The layout.

    Raises:
        UserError: where it is none, saying why ``what`` has no part for each input.
    """
    if isinstance(layout, Unaligned):
        raise UserError(f"{what} has no part for each input, for it {layout.reason}: name another")
    return layout


def one_at_a_time(
    model: nn.Module, x: Tensor, names: Sequence[str], mode: Mode = "eval", seed: int = 0
) -> list[dict[str, Tensor]]:
    """The values of the named layers for each input alone; without those that it does not reach."""
    each: list[dict[str, Tensor]] = []
    with preserved(model, mode, seed, x.device), torch.no_grad(), capture(model, names) as values:
        for one in torch.split(x, 1):
            seed_torch(derive(seed, "model"), x.device)  # the same draws for each
            call_model(model, one)
            each.append({name: value for name, value in values.items() if value.numel()})
    return each


@contextmanager
def parameters_fixed(model: nn.Module) -> Iterator[None]:
    """No gradient to any parameter meanwhile: what has a gradient depends on the input."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _distinct(x: Tensor, n: int) -> Tensor:
    """(n, ...) the first inputs; where there are not so many, they begin anew, each time moved by one feature."""
    return torch.stack([x[k % len(x)].roll(k // len(x), dims=-1) if x.dim() > 1 else x[k % len(x)] for k in range(n)])


def _values(model: nn.Module, x: Tensor, layers: LayerSelection, seed: int) -> dict[str, Tensor]:
    with preserved(model, "eval", seed, x.device), parameters_fixed(model), capture(model, layers) as values:
        call_model(model, x.detach().clone().requires_grad_(x.is_floating_point()))
    return dict(values)


def _layout(one: Tensor, few: int, other: Tensor, more: int) -> Layout | Unaligned:
    if one.dim() != other.dim() or not one.numel() or not other.numel():
        return PART
    growing = [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
    if not growing:
        if not one.requires_grad and not other.requires_grad and torch.equal(one, other):
            return CONSTANT
        alike = float((one - other).detach().abs().max()) <= _CLOSE * float(one.detach().abs().max())
        return PART if alike else _WHOLE
    if len(growing) > 1:
        return _MIXED
    axis = growing[0]
    each, rest = divmod(one.shape[axis], few)
    if rest or other.shape[axis] != each * more:
        return PART
    candidates = [Layout(axis, one.dim(), each, apart) for apart in (False, True)[: 1 if each == 1 else 2]]
    gaps = []
    for layout in candidates:
        rows, beside = layout.to_rows(one.detach(), few).double(), layout.to_rows(other.detach(), more).double()
        gap = torch.where(rows == beside[:few], 0.0, rows - beside[:few]).abs().nan_to_num(torch.inf)
        gaps.append(float(gap.max()) / max(float(rows.abs().max()), 1e-300))
    best = min(range(len(candidates)), key=lambda k: gaps[k])
    if gaps[best] <= _CLOSE:
        return candidates[best]
    if each > 1:
        return _FOLDED
    # Rows that depend on the batch, or are drawn, are still the inputs'; the same rows in other places are not.
    return PART if _elsewhere(rows.flatten(1), beside.flatten(1)) else candidates[best]


def _elsewhere(rows: Tensor, among: Tensor) -> bool:
    """Whether each row is found in another place."""
    gaps = (rows[:, None] - among[None]).abs().amax(2)
    return bool((gaps.amin(1) <= _CLOSE * rows.abs().max()).all())
