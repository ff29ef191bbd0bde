"""Maxima: over windows of an image, over dimensions, of two tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.operation import Interval, LowerLines, Operation, Place, Pull, summed, with_dims
from buttress.errors import UserError


class Candidates(ABC):
    """Which features each maximum is the largest of."""

    @abstractmethod
    def gather(self, inputs: dict[Ref, Tensor], fill: float) -> Tensor:
        """Of inputs (N, 1, ...) values (N, candidates, maxima); ``fill`` where a maximum has fewer than others."""

    @abstractmethod
    def spread(self, coefficients: Tensor) -> Pull:
        """Coefficients (S, N, candidates, maxima) added up at the features that they belong to."""


class Maximum(Operation):
    """The largest of some features each; or the smallest, as the largest of their negatives.

    Args:
        candidates: which, for an operation at its place.
        sign: 1 for the largest, -1 for the smallest.
    """

    def __init__(self, candidates: Callable[[Place], Candidates], sign: int = 1) -> None:
        self.candidates, self.sign = candidates, sign

    def interval(self, place: Place, inputs: dict[Ref, Interval]) -> Interval:
        """A maximum rises with all of its candidates."""
        low, high = ({ref: ends[side] for ref, ends in inputs.items()} for side in range(2))
        return place.run(low), place.run(high)

    def pull(self, place: Place, output: Tensor, inputs: dict[Ref, Interval], lines: LowerLines) -> tuple[Pull, Tensor]:
        """Below: the candidate with the highest lower end. Above: the same where no other can exceed it.

        Elsewhere the line above is, for the candidate u with the highest upper end, the chord of max(u, m), where m is
        the highest upper end of the others.
        """
        chosen = self.candidates(place)
        ends = [(low, high) if self.sign > 0 else (-high, -low) for low, high in inputs.values()]
        low, high = (chosen.gather(dict(zip(inputs, side, strict=True)), -math.inf) for side in zip(*ends, strict=True))
        first = low.argmax(1, keepdim=True)
        top, at = high.topk(min(2, high.shape[1]), dim=1)
        most, leading = top[:, :1], at[:, :1]
        others = top[:, 1:2] if top.shape[1] > 1 else torch.full_like(most, -math.inf)
        lead = low.gather(1, leading)
        decided = lead >= others
        slope = torch.where(decided, 1.0, (most - others) / torch.where(decided, 1.0, most - lead))
        offset = torch.where(decided, 0.0, others - slope * lead)
        each = self.sign * output.flatten(2)[:, :, None]  # (S, N, 1, maxima)
        below, above = each.clamp(min=0), each.clamp(max=0)
        spread = each.new_zeros(*each.shape[:2], *low.shape[1:])
        spread = spread.scatter_add(2, first.expand_as(each), below)
        spread = spread.scatter_add(2, leading.expand_as(each), above * slope)
        pulled = chosen.spread(self.sign * spread)
        return pulled, (above * offset).flatten(2).sum(2)


class Windows(Candidates):
    """Of each window of images (1, C, H, W)."""

    def __init__(self, place: Place) -> None:
        (self.ref,) = place.inputs
        arguments: list[Any] = [*place.node.arguments[1:]]
        usual: list[Any] = [None, [], 0, 1, False]
        arguments += usual[len(arguments) :]
        size, stride, padding, dilation, _ = arguments
        self.size, self.padding, self.dilation = _pair(size), _pair(padding), _pair(dilation)
        self.stride = _pair(stride) if stride else self.size
        self.channels, *self.input = place.graph.shape_of(self.ref)[1:]
        self.places = place.node.shapes[0][2:]
        # What ceil_mode adds at the right and the bottom.
        self.more = [
            max(0, (out - 1) * step + wide * (size - 1) + 1 - (length + 2 * pad))
            for out, step, wide, size, length, pad in zip(
                self.places, self.stride, self.dilation, self.size, self.input, self.padding, strict=True
            )
        ]

    def gather(self, inputs: dict[Ref, Tensor], fill: float) -> Tensor:
        """See `Candidates`."""
        x = inputs[self.ref].flatten(0, 1)
        flat = self._unfold(x.flatten(0, 1)[:, None])
        flat = flat.masked_fill(self._unfold(torch.zeros_like(x[:1, :1]), 1.0) > 0, fill)
        return flat.view(len(x), self.channels, *flat.shape[1:]).transpose(1, 2).flatten(2)

    def spread(self, coefficients: Tensor) -> Pull:
        """See `Candidates`."""
        rows, columns = self.padding
        windows = coefficients.reshape(*coefficients.shape[:3], self.channels, -1).transpose(2, 3)
        height, width = (
            side + 2 * pad + more for side, pad, more in zip(self.input, self.padding, self.more, strict=True)
        )
        image: Tensor = F.fold(windows.flatten(0, 2), (height, width), self.size, self.dilation, 0, self.stride)
        image = image[:, 0, rows : rows + self.input[0], columns : columns + self.input[1]]
        return {self.ref: image.reshape(*windows.shape[:2], 1, self.channels, *self.input)}

    def _unfold(self, images: Tensor, beyond: float = 0.0) -> Tensor:
        """(N, window, places) of images with one channel."""
        rows, columns = self.padding
        padded = F.pad(images, (columns, columns + self.more[1], rows, rows + self.more[0]), value=beyond)
        windows: Tensor = F.unfold(padded, self.size, self.dilation, 0, self.stride)
        return windows


class Dimensions(Candidates):
    """Over some dimensions of a tensor."""

    def __init__(self, place: Place) -> None:
        (self.ref,) = place.inputs
        self.shape = place.graph.shape_of(self.ref)
        dims = _dimensions(place, len(self.shape))
        self.order = [*sorted(dims), *(dim for dim in range(len(self.shape)) if dim not in dims)]
        self.count = len(dims)

    def gather(self, inputs: dict[Ref, Tensor], fill: float) -> Tensor:
        """See `Candidates`."""
        moved = inputs[self.ref].permute(0, *(dim + 1 for dim in self.order))
        return moved.reshape(len(moved), moved.shape[1 : 1 + self.count].numel(), -1)

    def spread(self, coefficients: Tensor) -> Pull:
        """See `Candidates`."""
        sizes = [self.shape[dim] for dim in self.order]
        back = [self.order.index(dim) for dim in range(len(self.shape))]
        moved = coefficients.reshape(*coefficients.shape[:2], *sizes)
        return {self.ref: moved.permute(0, 1, *(place + 2 for place in back))}


class Pair(Candidates):
    """Of two tensors, which are broadcast."""

    def __init__(self, place: Place) -> None:
        self.refs = place.inputs
        self.shapes = [place.graph.shape_of(ref) for ref in self.refs]
        self.shape = place.node.shapes[0]

    def gather(self, inputs: dict[Ref, Tensor], fill: float) -> Tensor:
        """See `Candidates`."""
        values = (with_dims(inputs[ref], 1 + len(self.shape)) for ref in self.refs)
        return torch.stack([value.expand(len(value), *self.shape).flatten(1) for value in values], 1)

    def spread(self, coefficients: Tensor) -> Pull:
        """See `Candidates`."""
        parts = (part.view(*part.shape[:2], *self.shape) for part in torch.unbind(coefficients, 2))
        return {ref: summed(part, shape) for ref, part, shape in zip(self.refs, parts, self.shapes, strict=True)}


def _dimensions(place: Place, count: int) -> set[int]:
    """Those that a maximum is over.

    Raises:
        UserError: for one over parts of an image that differ in size.
    """
    node = place.node
    if node.name == "adaptive_max_pool2d":
        if place.graph.nodes[place.index].shapes[0][2:].numel() > 1:
            raise UserError(f"cannot bound {node}: bounds are known of a maximum over the whole image alone")
        return set(range(2, count))
    over = node.arguments[1] if len(node.arguments) > 1 else []
    return {dim % count for dim in ([over] if isinstance(over, int) else over)} or set(range(count))


def _pair(value: Any) -> tuple[int, int]:
    several = [value] if isinstance(value, int) else list(value)
    return int(several[0]), int(several[-1])
