"""Maxima over windows."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.operation import Interval, LowerLines, Operation, Place, Pull


class MaxPool2d(Operation):
    """The largest value of each window of an image (N, C, H, W)."""

    def interval(self, place: Place, inputs: dict[Ref, Interval]) -> Interval:
        """A maximum rises with all of its inputs."""
        ((ref, (low, high)),) = inputs.items()
        return place.run({ref: low}), place.run({ref: high})

    def pull(self, place: Place, output: Tensor, inputs: dict[Ref, Interval], lines: LowerLines) -> tuple[Pull, Tensor]:
        """Below: the input with the highest lower end. Above: that too where no other can exceed it.

        Elsewhere the line above is, of the inputs that may be the largest, the chord of ``max(z, m)`` for the one with
        the highest upper end, where m is the highest upper end of the others.
        """
        ((ref, (low, high)),) = inputs.items()
        windows = _Windows(place, low)
        lows, highs = windows.unfold(low, -math.inf), windows.unfold(high, -math.inf)
        first = lows.argmax(2, keepdim=True)
        top, at = highs.topk(min(2, highs.shape[2]), dim=2)
        most, leading = top[:, :, :1], at[:, :, :1]
        others = top[:, :, 1:2] if top.shape[2] > 1 else torch.full_like(most, -math.inf)
        lead = lows.gather(2, leading)
        decided = lead >= others
        # max(z, m) <= m + (u - m)(z - l)/(u - l) on [l, u], for l < m <= u: the chord from (l, m) to (u, u).
        width = torch.where(decided, 1.0, most - lead)
        slope = torch.where(decided, 1.0, (most - others) / width)
        offset = torch.where(decided, 0.0, others - slope * lead)
        columns = output.flatten(3)[:, :, :, None]  # (S, N, C, 1, L)
        below, above = columns.clamp(min=0), columns.clamp(max=0)
        spread = columns.new_zeros(*columns.shape[:3], lows.shape[2], columns.shape[4])
        spread = spread.scatter_add(3, first.expand_as(columns[0]).expand_as(columns), below)
        spread = spread.scatter_add(3, leading.expand_as(columns), above * slope)
        return {ref: windows.fold(spread)}, (above * offset).flatten(2).sum(2)


class _Windows:
    """The windows of a pooling: (N, C, H, W) to (N, C, window, places) and back."""

    def __init__(self, place: Place, like: Tensor) -> None:
        arguments: list[Any] = [*place.node.arguments[1:]]
        usual: list[Any] = [None, [], 0, 1, False]
        arguments += usual[len(arguments) :]
        size, stride, padding, dilation, _ = arguments
        self.size, self.padding, self.dilation = _pair(size), _pair(padding), _pair(dilation)
        self.stride = _pair(stride) if stride else self.size
        self.input, self.places = like.shape[2:], place.node.shapes[0][2:]
        # What ceil_mode adds at the right and the bottom.
        self.more = [
            max(0, (out - 1) * step + wide * (size - 1) + 1 - (length + 2 * pad))
            for out, step, wide, size, length, pad in zip(
                self.places, self.stride, self.dilation, self.size, self.input, self.padding, strict=True
            )
        ]

    def unfold(self, x: Tensor, fill: float) -> Tensor:
        """(N, C, window, places)."""
        rows, columns = self.padding
        padded = F.pad(x, (columns, columns + self.more[1], rows, rows + self.more[0]), value=0.0)
        beyond = F.pad(
            torch.zeros_like(x[:1, :1]), (columns, columns + self.more[1], rows, rows + self.more[0]), value=1.0
        )
        count, channels = x.shape[:2]
        flat: Tensor = F.unfold(padded.flatten(0, 1)[:, None], self.size, self.dilation, 0, self.stride)
        outside = F.unfold(beyond, self.size, self.dilation, 0, self.stride) > 0
        places = int(self.places[0] * self.places[1])
        return flat.masked_fill(outside, fill)[:, :, :places].view(count, channels, -1, places)

    def fold(self, windows: Tensor) -> Tensor:
        """(S, N, C, window, places) added up at (S, N, C, H, W)."""
        rows, columns = self.padding
        height, width = self.input[0] + 2 * rows + self.more[0], self.input[1] + 2 * columns + self.more[1]
        flat = windows.flatten(0, 2)
        image: Tensor = F.fold(flat, (height, width), self.size, self.dilation, 0, self.stride)
        image = image[:, 0, rows : rows + self.input[0], columns : columns + self.input[1]]
        return image.reshape(*windows.shape[:3], *self.input)


def _pair(value: Any) -> tuple[int, int]:
    several = [value] if isinstance(value, int) else list(value)
    return int(several[0]), int(several[-1])
