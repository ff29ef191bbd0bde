"""The noise that a network is smoothed by, and the radius that a probability under it stands for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from buttress.random import Random


class Noise(ABC):
    """A distribution of noise on inputs, of a given standard deviation for each value.

    Attributes:
        name: in words.
        norm: in which a probability under it bounds what a perturbation can do.
    """

    name: ClassVar[str]
    norm: ClassVar[str]

    @abstractmethod
    def draw(self, random: Random, sigma: float, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """(N, *shape) noise of standard deviation ``sigma``, a stream for each row."""

    @abstractmethod
    def radius(self, probability: float, sigma: float) -> float:
        """Within which the class stays the likeliest, whose probability at the input is at least this, 1/2 or more."""

    def ceiling(self, n: int, alpha: float, sigma: float) -> float:
        """The largest radius that ``n`` votes can show, where all of them agree: their bound is alpha^(1/n)."""
        return self.radius(max(0.5, alpha ** (1 / n)), sigma)


class Normal(Noise):
    """Normal noise, for l2: R = sigma Phi^-1(p) (Cohen, Rosenfeld and Kolter, ICML 2019, theorem 1 with p_B = 1 - p).

    `Random.normal` is computed in float32 from 24 bits, so that no value is beyond 5.8 sigma; of a normal variable one
    in 10^8 is.
    """

    name = "normal noise"
    norm = "l2"

    def draw(self, random: Random, sigma: float, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """See `Noise`."""
        return sigma * random.normal(shape, dtype)

    def radius(self, probability: float, sigma: float) -> float:
        """See `Noise`."""
        from scipy.special import ndtri

        return sigma * float(ndtri(probability))


class Uniform(Noise):
    """Uniform noise on [-h, h] for each value, for l1: R = 2 h (p - 1/2) (Yang et al., ICML 2020); h = sqrt(3) sigma.

    A cube moved by d keeps at least 1 - |d|_1 / (2 h) of its volume, so p falls by no more than the rest.
    """

    name = "uniform noise"
    norm = "l1"

    def draw(self, random: Random, sigma: float, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """See `Noise`."""
        return math.sqrt(3) * sigma * (2 * random.uniform(shape, dtype) - 1)

    def radius(self, probability: float, sigma: float) -> float:
        """See `Noise`."""
        return 2 * math.sqrt(3) * sigma * (probability - 0.5)


NOISES: dict[str, Noise] = {noise.norm: noise for noise in (Normal(), Uniform())}
