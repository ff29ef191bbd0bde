"""Passes of different inputs compared, to find the axis of a value that is theirs, and to check its order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from buttress.errors import one_line
from buttress.layers.graph import leading_to
from buttress.layers.layout import CONSTANT, EMPTY, FOLDED, MIXED, ORDER, PART, WHOLE, Layout, Unaligned, unreadable
from buttress.layers.same_rows import CLOSE, elsewhere, gap, rounding, same

CHECKED = 32  # inputs of the pass that checks what two and three have shown
_ENOUGH = 8  # so many at least, lest an order that is drawn is that of the inputs by chance
_FEWEST = 4  # inputs that can check at once what a pass of all has shown
_Key = TypeVar("_Key", bound=Hashable)
_Read = Callable[[Tensor, int], Mapping[_Key, Tensor]]


def compared(read: _Read[_Key], x: Tensor) -> dict[_Key, Layout | Unaligned] | Unaligned:
    """Where the inputs are in each of the tensors that ``read`` gives of a pass of some inputs.

    A pass of two and one of three inputs show which axis grows with their number. That the parts along it are the
    inputs' is checked by up to 32, taken from the whole batch, in their own and in another order: the parts must come
    in that other order, too. What is the same in both, and no gradient leads to it, does not depend on the input.

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
            one, other = (read(distinct(x, n), 0) for n in (few, more))
        except Exception as error:  # whatever a network raises for a batch that it does not take
            refusal = refusal or error
            continue
        led_to = leading_to(distinct(x, more), other)
        candidates = {
            key: _candidates(one[key], few, other[key], more, key in led_to) if key in one and key in other else PART
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

    The pass is of up to 32 of the inputs, taken from the whole batch, in another order: their parts must be those of
    the first pass. That fails where the parts depend on other inputs or on their order, or are drawn; `compared` has to
    look at these, and at what no gradient leads to and has much the same parts.

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
    at = _taken(len(x), n)[_other_order(n)]
    try:
        some = read(x[at], 0)
    except Exception:  # whatever a network raises for a batch that it does not take
        return {}
    found: dict[_Key, Layout] = {}
    for key in values.keys() & some.keys():
        value, part = values[key], some[key].detach()
        folds = _folds(part, n, value, len(x))
        turn = [fold for fold in folds if same(fold.to_rows(part, n), fold.to_rows(value, len(x))[at])]
        if len(turn) != 1:
            continue
        if not _alike(turn[0].to_rows(part, n)) or leading_to(x[at], {key: some[key]}):
            found[key] = turn[0]
    return {key: found[key] for key in values if key in found} if some.keys() <= values.keys() else {}


def _taken(count: int, n: int) -> Tensor:
    """(n,) which of so many inputs are taken, from first to last."""
    return torch.linspace(0, count - 1, n).long()


def _other_order(n: int) -> Tensor:
    """(n,) an order that no usual one undoes or exchanges with, as turning round and moving on would, from three on."""
    k = torch.arange(n)
    return torch.cat([k[1::2].flip(0), k[::2]])


def _alike(rows: Tensor) -> bool:
    """Whether all parts are equal, up to rounding."""
    return gap(rows, rows[:1].expand_as(rows)) <= rounding(rows)


def distinct(x: Tensor, n: int) -> Tensor:
    """(n, ...) the first inputs; where there are not so many, they begin anew, each time moved by one feature."""
    return torch.stack([x[k % len(x)].roll(k // len(x), dims=-1) if x.dim() > 1 else x[k % len(x)] for k in range(n)])


def _sizes(n: int) -> list[tuple[int, int]]:
    """Numbers of inputs to compare, for a batch of n; the next where a network refuses these."""
    half = [(n // 2, n)] if n > 1 and n % 2 == 0 else []  # a network may take multiples of a number only
    return [(2, 3), (2, 4), (1, 2), *half, (n, 2 * n)]


def _candidates(one: Tensor, few: int, other: Tensor, more: int, led_to: bool) -> list[Layout] | Unaligned:
    """The layouts that the values of two passes allow, the first inputs of the larger one being those of the other.

    Args:
        one: the value of ``few`` inputs.
        few: see there.
        other: the value of ``more`` inputs.
        more: see there.
        led_to: whether a gradient leads from it to the inputs.
    """
    if (form := unreadable(one) or unreadable(other)) is not None:
        return form
    if one.dim() != other.dim():
        return PART
    growing = [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
    if not one.numel() or not other.numel():
        return EMPTY if growing and not one.numel() and not other.numel() else PART
    if not growing:
        if not led_to and torch.equal(one, other):
            return CONSTANT
        return PART if gap(one.detach()[None], other.detach()[None]) <= rounding(one) else WHOLE
    if len(growing) > 1:
        return MIXED
    folds = _folds(one, few, other, more)
    if not folds:
        return PART
    parts = [(fold.to_rows(one.detach(), few), fold.to_rows(other.detach(), more)) for fold in folds]
    close = [fold for fold, (rows, beside) in zip(folds, parts, strict=True) if gap(rows, beside[:few]) <= CLOSE]
    if not close and any(elsewhere(*part) for part in parts):
        return ORDER
    return close or folds  # the parts of inputs may depend on the batch, or be drawn


def _folds(one: Tensor, few: int, other: Tensor, more: int) -> list[Layout]:
    """The layouts that the values of two passes allow by their shapes, and by what is in both and of no input."""
    if unreadable(one) or unreadable(other) or one.dim() != other.dim() or not one.numel():
        return []
    growing = [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
    if len(growing) != 1:
        return []
    axis = growing[0]
    each, rest = divmod(other.shape[axis] - one.shape[axis], more - few)
    of_none = one.shape[axis] - few * each
    if each < 1 or rest or of_none < 0:
        return []
    folds = [
        Layout(axis, one.dim(), outer, each // outer, before, of_none - before)
        for outer in range(1, each + 1)
        if each % outer == 0
        for before in dict.fromkeys((0, of_none))
    ]
    return [fold for fold in folds if _shares(fold, one, other)]


def _shares(layout: Layout, one: Tensor, other: Tensor) -> bool:
    """Whether what belongs to no input is the same in two passes."""
    parts = zip(layout.shared(one.detach()), layout.shared(other.detach()), strict=True)
    return all(not len(part) or gap(part[None], beside[None]) <= rounding(part) for part, beside in parts)


def _checked(
    read: _Read[_Key],
    x: Tensor,
    before: Mapping[_Key, Tensor],
    least: int,
    candidates: Mapping[_Key, list[Layout] | Unaligned],
) -> dict[_Key, Layout | Unaligned]:
    """The one of the candidates whose parts change their order with the inputs.

    Args:
        read: as in `compared`.
        x: (N, ...) inputs.
        before: what was read of ``least`` inputs.
        least: the smallest number of inputs that tells anything new.
        candidates: what is possible after that.
    """
    count = len(x)
    sizes = min(max(count, _ENOUGH), CHECKED), min(count, CHECKED), count, least
    for n in dict.fromkeys(n for n in sizes if n >= least):
        some = distinct(x if n > count else x[_taken(count, n)], n)
        order = _other_order(n)
        try:
            shown = read(some, 0)
            led_to, values = leading_to(some, shown), _kept(shown)
            moved = _kept(read(some[order], 0))
            break
        except Exception:  # a batch that the network does not take, as above
            continue
    else:
        return {key: _only(found) for key, found in candidates.items()}
    tells = not torch.equal(some, some[order])
    answers: dict[_Key, Layout | Unaligned] = {}
    doubtful: dict[_Key, list[Layout]] = {}
    for key in dict.fromkeys((*candidates, *values)):
        found, value, other = candidates.get(key, PART), values.get(key), moved.get(key)
        if isinstance(found, Unaligned):
            answers[key] = found
            if found in (CONSTANT, WHOLE) and value is not None and value.shape != before[key].shape:
                answers[key] = PART
            elif found == CONSTANT and value is not None and not torch.equal(value, before[key]):
                answers[key] = WHOLE
            continue
        if value is None or other is None:
            answers[key] = PART
            continue
        fits = [layout for layout in found if layout.fits(value, n) and layout.fits(other, n)]
        fits = [layout for layout in fits if _shares(layout, value, other)]
        turn = [layout for layout in fits if same(layout.to_rows(value, n)[order], layout.to_rows(other, n))]
        answers[key] = _only(turn or fits) if fits else PART
        if fits and tells and key not in led_to and torch.equal(value, other):
            answers[key] = replace(CONSTANT, repeated=answers[key])
        elif fits and not turn:
            doubtful[key] = fits
    return answers | (_by_place(read, some, values, doubtful) if doubtful else {})


def _by_place(
    read: _Read[_Key], x: Tensor, values: Mapping[_Key, Tensor], doubtful: Mapping[_Key, list[Layout]]
) -> dict[_Key, Layout | Unaligned]:
    """What does not move with the inputs: drawn, or of each input and its place in the batch, or in disorder."""
    again = _kept(read(x, 1))
    halves: list[tuple[Tensor, Mapping[_Key, Tensor]]] = []
    for stay in _halves(len(x)):  # the others are replaced, by those that stay
        mixed = x.clone()
        kept = stay.nonzero()[:, 0].flip(0)
        mixed[~stay] = x[kept[torch.arange(int((~stay).sum())) % len(kept)]]
        halves.append((stay, _kept(read(mixed, 0))))

    def stays(key: _Key, layout: Layout) -> bool:
        rows = layout.to_rows(values[key], len(x))
        return all(
            key in half and layout.fits(half[key], len(x)) and same(rows[stay], layout.to_rows(half[key], len(x))[stay])
            for stay, half in halves
        )

    answers: dict[_Key, Layout | Unaligned] = {}
    for key, found in doubtful.items():
        value, other = values[key], again.get(key)
        drawn = other is None or other.shape != value.shape or not same(other[None], value[None])
        left = [layout for layout in found if stays(key, layout)]
        if drawn and other is not None and any(_shuffled(layout, value, other, len(x)) for layout in found):
            answers[key] = ORDER
        else:
            answers[key] = _only(left or found) if left or drawn else ORDER
    return answers


def _shuffled(layout: Layout, value: Tensor, other: Tensor, n: int) -> bool:
    """Whether two draws have the same parts in other places."""
    return layout.fits(other, n) and elsewhere(layout.to_rows(value, n), layout.to_rows(other, n))


def _halves(n: int) -> tuple[Tensor, Tensor]:
    """(n,) bool, every other one, counted from both ends so that turning all round exchanges the two halves."""
    k = torch.arange(n)
    half = torch.where(2 * k < n - 1, k % 2 == 0, (n - 1 - k) % 2 == 1)
    return half, ~half


def _kept(values: Mapping[_Key, Tensor]) -> dict[_Key, Tensor]:
    """Copies without the graphs, for the network may fill the same memory again in the next pass."""
    return {key: value.detach().clone() for key, value in values.items()}


def _only(found: Sequence[Layout] | Unaligned) -> Layout | Unaligned:
    if isinstance(found, Unaligned):
        return found
    return found[0] if len(found) == 1 else FOLDED
