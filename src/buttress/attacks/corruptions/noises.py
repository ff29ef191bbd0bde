"""Statistical noises: the base of perturbations by chance alone, and those that change every value or single pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.engine.perturbation import Perturbation
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import Threat, per_row
from buttress.validation import not_negative, share


@dataclass(frozen=True, kw_only=True)
class Noise(Perturbation):
    """A perturbation by chance alone: no budget and no passes but the verdict's.

    Args:
        box: the range (low, high) that inputs live in, or None for no limit.
    """

    box: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse an empty box, as a threat does."""
        object.__setattr__(self, "box", Threat(box=self.box).box)

    def search_passes(self, classes: int) -> PassCount | None:
        """None: chance asks nothing."""
        return PassCount()

    def clip(self, x: Tensor) -> Tensor:
        """``x`` put back into the box."""
        return self._place.clip(x, x)

    def widths(self, x: Tensor) -> Tensor:
        """The box's width, 1 without one, which lengths are multiplied by; see `Threat.widths`."""
        return self._place.widths(x)

    def extremes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Black and white: the ends of the box, or where there is none each input's own least and largest value."""
        rows, (low, high) = x.flatten(1), self._place.limits(x)
        low = torch.where(low.isfinite(), low, per_row(rows.amin(1), x))
        return low, torch.where(high.isfinite(), high, per_row(rows.amax(1), x))

    @property
    def _place(self) -> Threat:
        """The box alone, which knows its geometry."""
        return Threat(eps=math.inf, box=self.box)


@dataclass(frozen=True, kw_only=True)
class Impulses(Noise):
    """Single pixels that lose their value, each with the same chance: salt, pepper or both.

    Args:
        amount: the chance of each pixel.
        box: the range (low, high) of the values; without one, each input's own least and largest value.
    """

    amount: float = 0.05

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        share("amount", self.amount)


def pixels(x: Tensor) -> tuple[int, ...]:
    """The shape of one draw per pixel: images (N, C, H, W) share it among their channels, other inputs have no such."""
    return (1, *x.shape[2:]) if x.dim() == 4 else tuple(x.shape[1:])


@attack("gaussian")
@dataclass(frozen=True, kw_only=True)
class Gaussian(Noise):
    """Independent normal noise on every value.

    Args:
        std: its standard deviation before clipping, in widths of the box, or in input units without one.
        box: the range (low, high) that inputs live in and the result is clipped to, or None for no limit.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        not_negative("std", self.std)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The noisy inputs."""
        return self.clip(x + self.std * self.widths(x) * random.normal(x.shape[1:], x.dtype))


@attack("uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform(Noise):
    """Independent noise on every value, uniform in [-eps, eps], in widths of the box.

    Args:
        eps: its largest size, in widths of the box, or in input units without one.
        box: the range (low, high) that inputs live in and the result is clipped to, or None for no limit.
    """

    eps: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        not_negative("eps", self.eps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The noisy inputs."""
        return self.clip(x + self.eps * self.widths(x) * (2 * random.uniform(x.shape[1:], x.dtype) - 1))


@attack("speckle")
@dataclass(frozen=True, kw_only=True)
class Speckle(Noise):
    """Multiplicative normal noise, as in coherent imaging: x + x n with n normal on every value.

    Args:
        std: the standard deviation of n.
        box: the range (low, high) that inputs live in and the result is clipped to, or None for no limit.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        not_negative("std", self.std)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The noisy inputs."""
        return self.clip(x + x * (self.std * random.normal(x.shape[1:], x.dtype)))


@attack("salt")
@dataclass(frozen=True, kw_only=True)
class Salt(Impulses):
    """Pixels turned white: all channels of an image's pixel together, or single values of other inputs.

    Args:
        amount: the chance of each pixel.
        box: the range (low, high) of the values; without one, each input's own least and largest value.
    """

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs with their salt."""
        _, white = self.extremes(x)
        return torch.where(random.uniform(pixels(x)) < self.amount, white, x)


@attack("pepper")
@dataclass(frozen=True, kw_only=True)
class Pepper(Impulses):
    """Pixels turned black: all channels of an image's pixel together, or single values of other inputs.

    Args:
        amount: the chance of each pixel.
        box: the range (low, high) of the values; without one, each input's own least and largest value.
    """

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs with their pepper."""
        black, _ = self.extremes(x)
        return torch.where(random.uniform(pixels(x)) < self.amount, black, x)


@attack("salt-and-pepper")
@dataclass(frozen=True, kw_only=True)
class SaltAndPepper(Impulses):
    """Pixels turned white or black: all channels of an image's pixel together, or single values of other inputs.

    Args:
        amount: the chance of each pixel to be turned; white and black are equally likely.
        box: the range (low, high) of the values; without one, each input's own least and largest value.
    """

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs with their salt and pepper."""
        black, white = self.extremes(x)
        draw = random.uniform(pixels(x))
        return torch.where(draw < self.amount / 2, black, torch.where(draw < self.amount, white, x))
