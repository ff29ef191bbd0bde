"""The one-pixel attack: differential evolution over where to paint and with which colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.attacks.black_box.decision_based import Best
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat
from buttress.validation import whole

_WEIGHT = 0.5  # of the difference that a child is moved by, F in the paper


@attack("one-pixel")
@dataclass(frozen=True, kw_only=True)
class OnePixel(Attack):
    """A few pixels painted over, chosen by differential evolution (Su et al., IEEE TEVC 2019).

    Each candidate holds a row, a column and a colour for every pixel. A child is one candidate plus half the difference
    of two others, without crossover, and takes the place of its parent if the model's loss is higher there. A pixel of
    an image (N, C, H, W) has all its channels; other inputs are read as one row of pixels with one channel. Colours
    cover what the threat allows a single value; a whole candidate is then projected into it. Our choices: the loss is
    the task's own (for classes, minus the logarithm of the published probability), what leaves the range of a gene is
    clipped, and the search uses up its queries also where it has won.

    Cost per input: ``queries`` forwards.

    Args:
        threat: what is allowed; unless given any colour in the box.
        pixels: how many are painted over.
        population: candidates that compete (the paper: 400).
        queries: questions to the model for each input, the unperturbed one included.
    """

    default_threat: ClassVar[Threat] = Threat(norm="linf", eps=math.inf)
    threat: Threat = NOT_GIVEN
    pixels: int = 1
    population: int = 100
    queries: int = 10_000

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("pixels", self.pixels)
        whole("population", self.population, 4)  # a child has three other parents
        whole("queries", self.queries)
        check_threat("the one-pixel attack", self.threat, finite=True)

    def search_passes(self, classes: int) -> PassCount:
        """The queries."""
        return PassCount(self.queries)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The best candidate, see `Best`; the input itself is one."""
        loss = oracle.loss(x)
        best, ends = Best(x, loss, oracle.success), self.threat.cube(x)
        genes = children = self._first(x, random)
        fitness = torch.full(genes.shape[:2], -torch.inf, dtype=x.dtype, device=x.device)
        for query in range(self.queries - 1):
            if oracle.done:
                break
            k = query % self.population
            if query and k == 0:
                children = self._children(genes, random)
                genes = genes.clone()  # parents are replaced one by one, while the children stay
            points = self._painted(x, children[:, k], ends)
            loss = oracle.loss(points)
            fitter = loss > fitness[:, k]
            genes[:, k] = torch.where(fitter[:, None, None], children[:, k], genes[:, k])
            fitness[:, k] = torch.where(fitter, loss, fitness[:, k])
            best.offer(points, loss, oracle.success)
        return best.point

    def _first(self, x: Tensor, random: Random) -> Tensor:
        """(N, P, pixels, 2 + C) genes in [0, 1]: places uniform, colours normal about the middle, as published."""
        channels = _as_image(x).shape[1]
        places = random.uniform((self.population, self.pixels, 2), x.dtype)
        colours = random.normal((self.population, self.pixels, channels), x.dtype)
        return torch.cat([places, (0.5 + 0.5 * colours).clamp(0, 1)], 3)

    def _children(self, genes: Tensor, random: Random) -> Tensor:
        """(N, P, pixels, 2 + C) one child for each candidate, from three others, all different."""
        rows = torch.arange(len(genes), device=genes.device)[:, None]
        a, b, c = (genes[rows, other] for other in three_others(self.population, random))
        return (a + _WEIGHT * (b - c)).clamp(0, 1)

    def _painted(self, x: Tensor, genes: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
        """(N, ...) inputs painted by one candidate each, (N, pixels, 2 + C), inside the threat."""
        image = _as_image(x)
        channels, height, width = image.shape[1:]
        painted = image.flatten(2).clone()
        row, column = ((genes[..., k] * size).long().clamp(max=size - 1) for k, size in ((0, height), (1, width)))
        for k in range(self.pixels):  # in turn: two of them may be the same
            index = (row * width + column)[:, k, None, None].expand(-1, channels, 1)
            low, high = (_as_image(end).flatten(2).gather(2, index) for end in ends)
            painted.scatter_(2, index, low + genes[:, k, 2:, None] * (high - low))
        return self.threat.project(painted.view_as(x), x)


def three_others(count: int, random: Random) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``count`` things three others, all different and evenly drawn: (N, count) indices, three times."""
    first, second, third = (random.integers(count - k, (count,)) for k in (1, 2, 3))
    second = second + (second >= first).long()  # past what has been taken: now different, and still uniform
    lower, upper = torch.minimum(first, second), torch.maximum(first, second)
    third = third + (third >= lower).long()
    third = third + (third >= upper).long()
    me = torch.arange(count, device=first.device)
    first, second, third = ((me + 1 + other) % count for other in (first, second, third))
    return first, second, third


def _as_image(x: Tensor) -> Tensor:
    """(N, C, H, W): images themselves, all else as (N, 1, 1, D)."""
    return x if x.dim() == 4 else x.flatten(1)[:, None, None, :]
