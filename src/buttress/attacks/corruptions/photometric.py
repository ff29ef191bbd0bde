"""Corruptions of values, with every pixel in its place: brightness, contrast, inverted, few and solarised tones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.attacks.corruptions.corruption import Corruption
from buttress.attacks.corruptions.image_operations import check_images, contrasted
from buttress.attacks.corruptions.noises import Noise
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import per_row


@attack("brightness")
@dataclass(frozen=True, kw_only=True)
class Brightness(Corruption):
    """All values raised or lowered by the same amount, up or down by a draw for each input.

    Severities: 0.05, 0.1, 0.15, 0.2 and 0.3 of the box, those of Hendrycks and Dietterich (ICLR 2019) for 32 pixels,
    who only raise.
    """

    levels: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.2, 0.3)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The brighter or darker images."""
        _, width = self.black_and_width(x)
        return x + self.strength * width * per_row(random.sign((), x.dtype), x)


@attack("contrast")
@dataclass(frozen=True, kw_only=True)
class Contrast(Corruption):
    """Less contrast: values drawn towards the mean of their image, as in Hendrycks and Dietterich (ICLR 2019).

    Severities: 0.75, 0.5, 0.4, 0.3 and 0.15 of the distance to the mean are left. The mean is that of all channels; no
    draws.
    """

    levels: ClassVar[tuple[float, ...]] = (0.75, 0.5, 0.4, 0.3, 0.15)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The flatter images."""
        return contrasted(x, self.strength)


@attack("invert")
@dataclass(frozen=True, kw_only=True)
class Invert(Noise):
    """The negative of an image: black for white, and each colour for its opposite.

    A change of style in which every edge stays where it was. No draws and no severities: halfway all would be grey.

    Args:
        box: the range (low, high) that inputs live in; without one each input's own least and largest value.
    """

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The negatives of (N, C, H, W) images."""
        check_images(type(self).__name__, x)
        low, high = self.extremes(x)
        return self.clip(low + high - x)


@attack("posterise")
@dataclass(frozen=True, kw_only=True)
class Posterise(Corruption):
    """Few tones, as on a screen print: each value is rounded to the nearest of a few evenly spaced ones.

    Severities: 8, 6, 4, 3 and 2 tones, of which the darkest is black and the brightest white; ours. No draws.
    """

    levels: ClassVar[tuple[float, ...]] = (8.0, 6.0, 4.0, 3.0, 2.0)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The images in few tones."""
        low, width = self.black_and_width(x)
        steps = self.strength - 1
        return low + width * ((x - low) / width * steps).round() / steps


@attack("solarise")
@dataclass(frozen=True, kw_only=True)
class Solarise(Corruption):
    """Bright values become their negatives, as in a photograph that saw light while it was developed.

    Severities: values above 0.8, 0.65, 0.5, 0.35 and 0.2 of the box are inverted; ours. No draws.
    """

    levels: ClassVar[tuple[float, ...]] = (0.8, 0.65, 0.5, 0.35, 0.2)

    def corrupt(self, x: Tensor, random: Random) -> Tensor:
        """The images with their bright parts inverted."""
        low, width = self.black_and_width(x)
        return torch.where(x - low > self.strength * width, low + width - (x - low), x)
