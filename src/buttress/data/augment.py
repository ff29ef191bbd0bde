"""Augmentation of a batch: random crop after padding, random mirror."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from buttress.random import Random, derive


class UniformDraws(Protocol):
    """A source of draws, one independent stream for each row of the batch (``buttress.random.Random`` is one)."""

    def uniform(self, shape: tuple[int, ...], /) -> Tensor:
        """Draws in [0, 1) of shape ``(N, *shape)``; row i belongs to input i of the batch."""
        ...


def draws(seed: int, epoch: int, ids: Tensor) -> Random:
    """The random draws that decide the augmentation of these inputs in one epoch of the training with this seed.

    Args:
        seed: the training's.
        epoch: from 0.
        ids: (N,) int64, what identifies each input.
    """
    return Random(derive(seed, "augment", epoch), ids)


@dataclass(frozen=True)
class Geometry:
    """Where each input of a batch was cut out of its padded image, and whether it was mirrored after that.

    Attributes:
        top: (N,) int64, first row of the cut.
        left: (N,) int64, first column of the cut.
        mirror: (N,) bool.
    """

    top: Tensor
    left: Tensor
    mirror: Tensor

    def cut(self, padded: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, *size) of (N, C, H, W) padded images, as the inputs were cut out of theirs."""
        n = torch.arange(len(padded), device=padded.device)
        windows = padded.unfold(2, size[0], 1).unfold(3, size[1], 1)
        return self._mirrored(windows[n, :, self.top, self.left])

    def put(self, part: Tensor, padded: Tensor) -> Tensor:
        """The padded images with ``part`` (N, C, h, w) in the place of what `cut` takes out; a new tensor."""
        n, channels, height, width = part.shape
        rows = self.top[:, None] + torch.arange(height, device=part.device)
        columns = self.left[:, None] + torch.arange(width, device=part.device)
        index = (
            torch.arange(n, device=part.device).view(-1, 1, 1, 1),
            torch.arange(channels, device=part.device).view(1, -1, 1, 1),
            rows[:, None, :, None],
            columns[:, None, None, :],
        )
        return padded.index_put(index, self._mirrored(part))

    def _mirrored(self, x: Tensor) -> Tensor:
        return torch.where(self.mirror.view(-1, 1, 1, 1), x.flip(-1), x)


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

    def __call__(self, x: Tensor, random: UniformDraws) -> Tensor:
        """Augment a float batch of shape (N, C, H, W); dtype, device and shape stay."""
        padded = functional.pad(x, (self.pad,) * 4) if self.pad else x
        return self.geometry(random, x.device).cut(padded, (x.shape[2], x.shape[3]))

    def geometry(self, random: UniformDraws, device: torch.device | None = None) -> Geometry:
        """What the same draws do to a batch: for whatever has to move with the images, as a map of each of them."""
        uniform = random.uniform((3,)).to(device)
        positions = 2 * self.pad + 1
        # Rounding may carry a draw just below 1 up to the first position outside.
        offset = (uniform[:, :2] * positions).long().clamp(max=positions - 1)
        mirror = (
            (uniform[:, 2] < 0.5) if self.flip else torch.zeros(len(uniform), dtype=torch.bool, device=uniform.device)
        )
        return Geometry(offset[:, 0], offset[:, 1], mirror)
