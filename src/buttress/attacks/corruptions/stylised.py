"""Changes of style: a sketch, a texture over the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption, larger
from buttress.random import Random
from buttress.registry import attack

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


@attack("sketch")
@dataclass(frozen=True, kw_only=True)
class Sketch(Corruption):
    """Edges in black on white paper, mixed with the image.

    The ink of a place is the length of its slope by Sobel's filters, of the mean of the channels, as a share of the
    image's longest; an image without edges is white paper.

    Severities: the sketch is 0.2, 0.4, 0.6, 0.8 and all of what is seen; ours. No draws.
    """

    levels: ClassVar[tuple[float, ...]] = (0.2, 0.4, 0.6, 0.8, 1.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The images mixed with their sketches."""
        low, width = self.black_and_width(x)
        drawn = low + width * (1 - ink((x - low) / width))
        return x + self.strength * (drawn - x)


def ink(x: Tensor) -> Tensor:
    """(N, 1, H, W) lengths of the slopes of (N, C, H, W) images, the longest of each 1; the edge is repeated outside.

    Slopes below a millionth, which rounding makes, count as none.
    """
    filters = torch.tensor(_SOBEL, device=x.device, dtype=x.dtype)
    grey = F.pad(x.mean(1, keepdim=True), (1,) * 4, mode="replicate")
    length = F.conv2d(grey, torch.stack([filters, filters.T])[:, None]).square().sum(1, keepdim=True).sqrt()
    most = length.amax((2, 3), keepdim=True)
    return torch.where(most > 1e-6, length / most, torch.zeros_like(length))


@attack("texture")
@dataclass(frozen=True, kw_only=True)
class Texture(Corruption):
    """A texture mixed into an image: waves in two directions, like cloth, drawn for each input.

    Each wave has a direction, a length of 2 to 8 pixels of an image of 32 pixels or less, growing with the larger side
    beyond that, and a phase for each channel, so that the cloth is coloured where the image can be.

    Severities: the texture is 0.1, 0.2, 0.3, 0.4 and 0.5 of what is seen; ours.
    """

    levels: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The images mixed with textures."""
        low, width = self.black_and_width(x)
        return x + self.strength * (low + width * woven(x, random) - x)


def woven(x: Tensor, random: Random) -> Tensor:
    """(N, C, H, W) textures for images of this shape: means of two waves between 0 and 1."""
    channels, height, width = x.shape[1:]
    angle = math.pi * random.uniform((2, 1, 1, 1), x.dtype)
    length = larger(x) * (2 + 6 * random.uniform((2, 1, 1, 1), x.dtype))
    phase = random.uniform((2, channels, 1, 1), x.dtype)
    down = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
    right = torch.arange(width, device=x.device, dtype=x.dtype)
    turns = (right * angle.cos() + down * angle.sin()) / length + phase
    return (0.5 + 0.5 * (2 * math.pi * turns).sin()).mean(1)
