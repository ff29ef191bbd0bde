"""Corruptions that lose detail: Gaussian blur, pixelation and JPEG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption, larger
from buttress.attacks.corruptions.image_operations import blurred
from buttress.random import Random
from buttress.registry import attack


@attack("gaussian-blur")
@dataclass(frozen=True, kw_only=True)
class GaussianBlur(Corruption):
    """Blur by a Gaussian, as in Hendrycks and Dietterich (ICLR 2019); no draws.

    Severities: standard deviations of 0.4, 0.6, 0.7, 0.8 and 1 pixel of an image of 32 pixels or less, growing with
    the larger side beyond that.
    """

    levels: ClassVar[tuple[float, ...]] = (0.4, 0.6, 0.7, 0.8, 1.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The blurred images."""
        return blurred(x, self.strength * larger(x))


@attack("pixelate")
@dataclass(frozen=True, kw_only=True)
class Pixelate(Corruption):
    """Fewer pixels: means over a coarser grid, shown at the old size, as in Hendrycks and Dietterich (ICLR 2019).

    Severities: 95, 90, 85, 75 and 65 % of the pixels of each side, rounded down. No draws.
    """

    levels: ClassVar[tuple[float, ...]] = (0.95, 0.9, 0.85, 0.75, 0.65)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The coarser images."""
        height, width = x.shape[2:]
        few = [max(1, int(self.strength * side)) for side in (height, width)]
        return F.interpolate(F.interpolate(x, size=few, mode="area"), size=(height, width), mode="nearest")


_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # 99 everywhere else
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@attack("jpeg")
@dataclass(frozen=True, kw_only=True)
class JPEG(Corruption):
    """What a baseline JPEG file of an image keeps (ITU-T T.81, with the tables of its annex K).

    Rounding to 8 bits, YCbCr where there are three channels (other numbers of channels are taken as so many grey
    images), the cosine transform of 8 x 8 blocks, its coefficients rounded to multiples of the table's, and back.
    Colour is kept at full resolution. No gradient and no draws. Severities: qualities of 80, 65, 58, 50 and 40, those
    of Hendrycks and Dietterich (ICLR 2019) for 32 pixels.
    """

    levels: ClassVar[tuple[float, ...]] = (80.0, 65.0, 58.0, 50.0, 40.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The images as they come out of the file."""
        low, width = self.black_and_width(x)
        bytes_ = ((x.double() - low) / width * 255).round()
        return (low + width * compressed(bytes_, int(self.strength)) / 255).to(x.dtype)


def compressed(x: Tensor, quality: int) -> Tensor:
    """Images (N, C, H, W) of float64 values 0 to 255, as they come back from a JPEG of this quality (1 to 100)."""
    tables = [table(_LUMINANCE, quality)] * x.shape[1]
    mix = torch.tensor(_YCC, device=x.device, dtype=x.dtype)
    coloured = x.shape[1] == 3
    if coloured:
        chroma = [[*row, 99, 99, 99, 99] for row in _COLOUR] + [[99] * 8] * 4
        tables[1:] = [table(chroma, quality)] * 2
        x = torch.einsum("ij,njhw->nihw", mix, x)
        x[:, 1:] += 128
        x = x.round()  # a file's samples are whole, too
    planes = [quantised(x[:, k : k + 1], tables[k].to(x)) for k in range(x.shape[1])]
    x = torch.cat(planes, 1).round().clamp(0, 255)
    if coloured:
        x[:, 1:] -= 128
        x = torch.einsum("ij,njhw->nihw", torch.linalg.inv(mix), x).round().clamp(0, 255)
    return x


def quantised(x: Tensor, steps: Tensor) -> Tensor:
    """Planes (N, 1, H, W) around 128, the coefficients of their 8 x 8 blocks rounded to multiples of (8, 8) steps."""
    height, width = x.shape[2:]
    whole = F.pad(x - 128, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = whole.unfold(2, 8, 8).unfold(3, 8, 8)
    cosine = transform().to(x)
    found = cosine @ blocks @ cosine.T / steps
    # Ties are common (flat blocks): they are rounded away from 0 and must not depend on the last digits of a product.
    number = found.sign() * (found.abs().round(decimals=6) + 0.5).floor()
    blocks = cosine.T @ (number * steps) @ cosine
    whole = blocks.permute(0, 1, 2, 4, 3, 5).reshape(whole.shape)
    return whole[:, :, :height, :width] + 128


def transform() -> Tensor:
    """(8, 8) float64 orthonormal cosine transform; its rows are the waves."""
    place = torch.arange(8, dtype=torch.float64)
    waves = torch.cos((2 * place + 1) * place[:, None] * math.pi / 16) / 2
    waves[0] /= math.sqrt(2)
    return waves


def table(usual: tuple[tuple[int, ...], ...] | list[list[int]], quality: int) -> Tensor:
    """(8, 8) steps of a quality: those of quality 50, scaled and rounded as the Independent JPEG Group does."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor(usual).mul(scale).add(50).floor_divide(100).clamp(1, 255)
