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
from buttress.errors import UserError, one_line
from buttress.layers.capture import capture
from buttress.layers.network_code import NetworkCode
from buttress.layers.same_rows import CLOSE, elsewhere, gap, rounding, same
from buttress.layers.select import LayerSelection
from buttress.model_call import call_model
from buttress.random import derive, seed_torch

CHECKED = 32  # inputs of the pass that checks what two and three have shown
_FEWEST = 4  # inputs that can check at once what a pass of all has shown
_Key = TypeVar("_Key", bound=Hashable)
_Read = Callable[[Tensor, int], Mapping[_Key, Tensor]]


@dataclass(frozen=True)
class Layout:
    """Where the inputs are in a layer's value.

    Attributes:
        axis: the one that grows with their number.
        dims: how many axes there are.
        outer: how many entries of each input lie apart in that axis, the inputs in between: more than one where time,
            windows or heads are folded into it before them.
        inner: how many lie in a run, for what is folded behind them. An input has ``outer * inner`` entries.
    """

    axis: int
    dims: int
    outer: int = 1
    inner: int = 1

    def fits(self, value: Tensor, n: int) -> bool:
        """Whether a value can be that of n inputs."""
        each = self.outer * self.inner
        if n == 1 and each == 1 and value.dim() == self.dims - 1:
            return True  # squeezed
        return value.dim() == self.dims and value.shape[self.axis] == n * each

    def to_rows(self, value: Tensor, n: int) -> Tensor:
        """(n, ...) a layer's value for n inputs, the inputs first."""
        if value.dim() == self.dims - 1:
            value = value.unsqueeze(self.axis)
        value = value.movedim(self.axis, 0)
        if self.outer * self.inner == 1:
            return value
        return value.reshape(self.outer, n, self.inner, *value.shape[1:]).transpose(0, 1).flatten(1, 2)

    def in_place_of(self, value: Tensor, rows: Tensor) -> Tensor:
        """These rows as the network has ``value``, squeezed or not: a copy, which the network may write over."""
        return self.from_rows(rows).reshape(value.shape).clone()

    def from_rows(self, rows: Tensor) -> Tensor:
        """The value as the network has it, of what `to_rows` gives."""
        if self.outer * self.inner > 1:
            rows = rows.reshape(-1, self.outer, self.inner, *rows.shape[2:]).transpose(0, 1).flatten(0, 2)
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
_FOLDED = Unaligned("holds several values for each input, in an order that cannot be told", True)
_ORDER = Unaligned("does not follow the order of the inputs, as what is sorted or packed by their values", True)
_WHOLE = Unaligned("is of one size for any number of inputs, as a mean over all of them is", False)
_EMPTY = Unaligned("holds no numbers", False)
PART = Unaligned("is computed for a part of the inputs, and not alone for any", True)


@in_usual_state
def layouts(
    model: nn.Module,
    x: Tensor,
    layers: LayerSelection = "activations",
    *,
    values: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    code: NetworkCode | None = None,
) -> dict[str, Layout | Unaligned]:
    """Where the inputs are in each layer's value, found by passes in eval mode; see `compared`.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs; the more there are, up to 32, the surer is the answer.
        layers: which layers; those alone are answered for which these inputs call.
        values: what a pass of all of ``x`` has shown, where one was made; see `found_again`. The answer is the same.
        seed: of what a random network draws.
        code: what has been read of the network's code.
    """
    code = code or NetworkCode()

    def read(some: Tensor, draw: int) -> dict[str, Tensor]:
        return _values(model, some, layers, seed + draw, code)

    again = {} if values is None else found_again(read, x, values)
    if again and values is not None and again.keys() == values.keys():
        return {**again}
    found = compared(read, x)
    if isinstance(found, Unaligned):
        with preserved(model, "eval", seed, x.device), torch.no_grad(), capture(model, layers, code=code) as values:
            call_model(model, x)
        return dict.fromkeys(values, found)
    alone = {name: layout for name, layout in found.items() if isinstance(layout, Unaligned) and layout.one_at_a_time}
    if alone and len(one_or_all(model, x, seed)) > 1:
        for name, layout in alone.items():
            found[name] = Unaligned(f"{layout.reason}; and the network takes no input alone", False)
    return found


def compared(read: _Read[_Key], x: Tensor) -> dict[_Key, Layout | Unaligned] | Unaligned:
    """Where the inputs are in each of the tensors that ``read`` gives of a pass of some inputs.

    A pass of two and one of three inputs show which axis grows with their number. That the parts along it are the
    inputs' is checked by up to 32, taken from the whole batch, in their own and in the opposite order: the parts must
    come in the opposite order, too.

    Args:
        read: what is seen in a pass of (n, ...) inputs, with the draws of a number where the network is random; may
            raise where it takes no such batch.
        x: (N, ...) inputs.

    Returns:
        By the keys of what was read; or, of a network that takes batches of one size only, that.
    """
    refusal: Exception | None = None
    for few, more in _sizes(len(x)):
        try:
            one, other = (read(_distinct(x, n), 0) for n in (few, more))
        except Exception as error:  # whatever a network raises for a batch that it does not take
            refusal = refusal or error
            continue
        candidates = {
            key: _candidates(one[key], few, other[key], more) if key in one and key in other else PART
            for key in dict.fromkeys((*other, *one))
        }
        return _checked(read, x, other, more, candidates)
    read(x, 0)  # a network that does not take these inputs either says why
    return Unaligned(
        "is in a network that takes batches of one size only, so the axis of inputs cannot be found; for others it "
        f"raises {'' if refusal is None else f'{type(refusal).__name__}: {one_line(refusal)}'}",
        False,
    )


def found_again(read: _Read[_Key], x: Tensor, values: Mapping[_Key, Tensor]) -> dict[_Key, Layout]:
    """Where the inputs are in most tensors that were read of a pass, by one pass more: the cheap way of `compared`.

    The pass is of up to 32 of the inputs, taken from the whole batch, in the opposite order: their parts must be those
    of the first pass. That fails where the parts depend on other inputs or on their order, or are drawn; `compared` has
    to look at these.

    Args:
        read: as in `compared`.
        x: (N, ...) inputs.
        values: what was read of all of them, with the draws of number 0.

    Returns:
        The layouts of those tensors in which one alone is possible.
    """
    n = min(len(x) - 1, CHECKED)
    if n < _FEWEST:
        return {}
    at = torch.linspace(len(x) - 1, 0, n).long()
    try:
        some = read(x[at], 0)
    except Exception:  # whatever a network raises for a batch that it does not take
        return {}
    found: dict[_Key, Layout] = {}
    for key in values.keys() & some.keys():
        value, part = values[key], some[key].detach()
        folds = _folds(part, n, value, len(x))
        turn = [fold for fold in folds if same(fold.to_rows(part, n), fold.to_rows(value, len(x))[at])]
        if len(turn) == 1:
            found[key] = turn[0]
    return {key: found[key] for key in values if key in found} if some.keys() <= values.keys() else {}


def layout_of(read: Callable[[Tensor], Tensor], x: Tensor, what: str) -> Layout:
    """Where the inputs are in the tensor that ``read`` gives of a pass; see `compared`.

    Args:
        read: gives the tensor for (n, ...) inputs.
        x: (N, ...) inputs.
        what: the tensor, for the error line.

    Raises:
        UserError: where it has no part for each input.
    """
    found = compared(lambda some, _: {what: read(some)}, x)
    return of_inputs(what, found if isinstance(found, Unaligned) else found[what])


def one_or_all(model: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    """(1, ...) the first input; (N, ...) all of them where the network does not take one alone."""
    try:
        with preserved(model, "eval", seed, x.device), torch.no_grad():
            call_model(model, x[:1])
    except Exception:  # whatever a network raises for a batch that it does not take
        return x
    return x[:1]


def of_inputs(what: str, layout: Layout | Unaligned) -> Layout:
    """The layout.

    Raises:
        UserError: where it is none, saying why ``what`` has no part for each input.
    """
    if isinstance(layout, Unaligned):
        raise UserError(f"{what} has no part for each input, for it {layout.reason}: name another")
    return layout


def one_at_a_time(
    model: nn.Module,
    x: Tensor,
    names: Sequence[str],
    mode: Mode = "eval",
    seed: int = 0,
    code: NetworkCode | None = None,
) -> list[dict[str, Tensor]]:
    """The values of the named layers for each input alone; without those that it does not reach."""
    each: list[dict[str, Tensor]] = []
    with preserved(model, mode, seed, x.device), torch.no_grad(), capture(model, names, code=code) as values:
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


def _values(model: nn.Module, x: Tensor, layers: LayerSelection, seed: int, code: NetworkCode) -> dict[str, Tensor]:
    with preserved(model, "eval", seed, x.device), parameters_fixed(model), capture(model, layers, code=code) as values:
        call_model(model, x.detach().clone().requires_grad_(x.is_floating_point()))
    return dict(values)


def _sizes(n: int) -> list[tuple[int, int]]:
    """Numbers of inputs to compare, for a batch of n; the next where a network refuses these."""
    half = [(n // 2, n)] if n > 1 and n % 2 == 0 else []  # a network may take multiples of a number only
    return [(2, 3), (2, 4), (1, 2), *half, (n, 2 * n)]


def _candidates(one: Tensor, few: int, other: Tensor, more: int) -> list[Layout] | Unaligned:
    """The layouts that the values of two passes allow, the first inputs of the larger one being those of the other."""
    if one.dim() != other.dim():
        return PART
    growing = [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
    if not one.numel() or not other.numel():
        return _EMPTY if growing and not one.numel() and not other.numel() else PART
    if not growing:
        if not one.requires_grad and not other.requires_grad and torch.equal(one, other):
            return CONSTANT
        return PART if gap(one.detach()[None], other.detach()[None]) <= rounding(one) else _WHOLE
    if len(growing) > 1:
        return _MIXED
    folds = _folds(one, few, other, more)
    if not folds:
        return PART
    parts = [(fold.to_rows(one.detach(), few), fold.to_rows(other.detach(), more)) for fold in folds]
    close = [fold for fold, (rows, beside) in zip(folds, parts, strict=True) if gap(rows, beside[:few]) <= CLOSE]
    if not close and one.shape[growing[0]] == few and elsewhere(*parts[0]):
        return PART
    return close or folds  # the parts of inputs may depend on the batch, or be drawn


def _folds(one: Tensor, few: int, other: Tensor, more: int) -> list[Layout]:
    """The layouts that the shapes of two passes allow."""
    if one.dim() != other.dim() or not one.numel():
        return []
    growing = [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
    each, rest = divmod(one.shape[growing[0]], few) if len(growing) == 1 else (0, 0)
    if not each or rest or other.shape[growing[0]] != each * more:
        return []
    return [Layout(growing[0], one.dim(), outer, each // outer) for outer in range(1, each + 1) if each % outer == 0]


def _checked(
    read: _Read[_Key],
    x: Tensor,
    before: Mapping[_Key, Tensor],
    least: int,
    candidates: Mapping[_Key, list[Layout] | Unaligned],
) -> dict[_Key, Layout | Unaligned]:
    """The one of the candidates whose parts turn round with the inputs.

    Args:
        read: as in `compared`.
        x: (N, ...) inputs.
        before: what was read of ``least`` inputs.
        least: the smallest number of inputs that tells anything new.
        candidates: what is possible after that.
    """
    for n in dict.fromkeys(n for n in (min(len(x), CHECKED), len(x), least) if n >= least):
        some = _distinct(x if n > len(x) else x[torch.linspace(0, len(x) - 1, n).long()], n)
        try:
            values, turned = _kept(read(some, 0)), _kept(read(some.flip(0), 0))
            break
        except Exception:  # a batch that the network does not take, as above
            continue
    else:
        return {key: _only(found) for key, found in candidates.items()}
    answers: dict[_Key, Layout | Unaligned] = {}
    doubtful: dict[_Key, list[Layout]] = {}
    for key in dict.fromkeys((*candidates, *values)):
        found, value, other = candidates.get(key, PART), values.get(key), turned.get(key)
        if isinstance(found, Unaligned):
            answers[key] = found
            if found in (CONSTANT, _WHOLE) and value is not None and value.shape != before[key].shape:
                answers[key] = PART
            elif found == CONSTANT and value is not None and not torch.equal(value, before[key]):
                answers[key] = _WHOLE
            continue
        if value is None or other is None:
            answers[key] = PART
            continue
        fits = [layout for layout in found if layout.fits(value, n) and layout.fits(other, n)]
        turn = [layout for layout in fits if same(layout.to_rows(value, n).flip(0), layout.to_rows(other, n))]
        answers[key] = _only(turn or fits) if fits else PART
        if fits and not turn:
            doubtful[key] = fits
    return answers | (_by_place(read, some, values, doubtful) if doubtful else {})


def _by_place(
    read: _Read[_Key], x: Tensor, values: Mapping[_Key, Tensor], doubtful: Mapping[_Key, list[Layout]]
) -> dict[_Key, Layout | Unaligned]:
    """What does not turn round with the inputs: drawn, or of each input and its place in the batch, or in disorder."""
    again = _kept(read(x, 1))
    halves: list[Mapping[_Key, Tensor]] = []
    for k in (0, 1):  # every other input is replaced, by those that stay
        stay = x[1 - k :: 2].flip(0)
        mixed = x.clone()
        mixed[k::2] = stay[torch.arange(len(x[k::2])) % len(stay)]
        halves.append(_kept(read(mixed, 0)))

    def stays(key: _Key, layout: Layout) -> bool:
        rows = layout.to_rows(values[key], len(x))
        return all(
            key in half
            and layout.fits(half[key], len(x))
            and same(rows[1 - k :: 2], layout.to_rows(half[key], len(x))[1 - k :: 2])
            for k, half in enumerate(halves)
        )

    answers: dict[_Key, Layout | Unaligned] = {}
    for key, found in doubtful.items():
        value = values[key]
        drawn = key not in again or again[key].shape != value.shape or not same(again[key][None], value[None])
        left = [layout for layout in found if stays(key, layout)] or (found if drawn else [])
        answers[key] = _only(left) if left else _ORDER
    return answers


def _kept(values: Mapping[_Key, Tensor]) -> dict[_Key, Tensor]:
    """Copies without the graphs, for the network may fill the same memory again in the next pass."""
    return {key: value.detach().clone() for key, value in values.items()}


def _only(found: Sequence[Layout] | Unaligned) -> Layout | Unaligned:
    if isinstance(found, Unaligned):
        return found
    return found[0] if len(found) == 1 else _FOLDED
