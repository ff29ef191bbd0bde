"""Augmentation of a batch: random crop after padding, random mirror."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Uniform(Protocol):
    """A source of draws, one independent stream for each row of the batch (``buttress.random.Random`` is one)."""

    def uniform(self, shape: tuple[int, ...], /) -> Tensor:
        """Draws in [0, 1) of shape ``(N, *shape)``; row i belongs to input i of the batch."""
        ...


@dataclass(frozen=True)
class Augment:
    """Pad with zeros and crop back at a random place, then mirror left to right with probability one half.

    The usual training augmentation of CIFAR-10 (He et al., 2016, section 4.2). Three draws for each input decide:
    vertical offset, horizontal offset, mirror.

    Args:
        pad: zeros added on every side before the crop, in pixels; 0 for no crop.
        flip: whether images may be mirrored; off where the direction carries meaning, such as digits.
    """

    pad: int = 4
    flip: bool = True

    def __call__(self, x: Tensor, random: Uniform) -> Tensor:
        """Augment a float batch of shape (N, C, H, W); dtype, device and shape stay."""
        n, _, height, width = x.shape
        draws = random.uniform((3,)).to(x.device)
        out = x
        if self.pad:
            places = 2 * self.pad + 1
            # Rounding may carry a draw just below 1 up to the first place outside.
            offset = (draws[:, :2] * places).long().clamp(max=places - 1)
            windows = functional.pad(x, (self.pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
            out = windows[torch.arange(n, device=x.device), :, offset[:, 0], offset[:, 1]]
        if self.flip:
            out = torch.where((draws[:, 2] < 0.5).view(-1, 1, 1, 1), out.flip(-1), out)
        return out
