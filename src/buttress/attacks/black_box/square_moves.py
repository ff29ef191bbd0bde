"""How Square proposes its next points: in linf windows at the edge of the ball, in l2 and l1 mass that moves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from buttress.attacks.black_box.square_windows import Grid, Windows, bump, window_size
from buttress.attacks.gradient.l1_geometry import project_l1
from buttress.float64 import above_zero
from buttress.random import Random
from buttress.threat import Threat, norms, per_row


class Moves(ABC):
    """Proposals for images (N, C, H, W) under one threat; all are inside it with tolerance 0."""

    def __init__(self, threat: Threat, x: Tensor) -> None:
        self.threat, self.x = threat, x

    @abstractmethod
    def only(self, rows: Tensor) -> Moves:
        """The same for some of the images, (M,) indices."""

    @abstractmethod
    def start(self, random: Random) -> Tensor:
        """(N, C, H, W) where the search begins."""

    @abstractmethod
    def draw(self, random: Random) -> Tensor:
        """(N, K) the chances that one proposal needs; ``random`` is of all images, whoever is left."""

    @abstractmethod
    def propose(self, best: Tensor, share: float, chance: Tensor) -> Tensor:
        """(N, C, H, W) the next points, from the best ones, by windows that cover a share of the image."""


class LinfMoves(Moves):
    """Windows in which each channel lies at one end of the ball, all the way up or all the way down."""

    def __init__(self, threat: Threat, x: Tensor) -> None:
        super().__init__(threat, x)
        self.low, self.high = threat.cube(x)

    def only(self, rows: Tensor) -> LinfMoves:
        """See `Moves`."""
        part = LinfMoves.__new__(LinfMoves)
        part.threat, part.x, part.low, part.high = self.threat, self.x[rows], self.low[rows], self.high[rows]
        return part

    def start(self, random: Random) -> Tensor:
        """Vertical stripes, one pixel wide."""
        up = random.sign((self.x.shape[1], 1, self.x.shape[3])) > 0
        return torch.where(up, self.high, self.low)

    def draw(self, random: Random) -> Tensor:
        """A place, and a direction for each channel."""
        return random.uniform((2 + self.x.shape[1],), torch.float64)

    def propose(self, best: Tensor, share: float, chance: Tensor) -> Tensor:
        """One window of each image, every channel of it up or down."""
        index = Windows.at(chance[:, :2], window_size(share, best.shape[2], best.shape[3]), best).index
        up = chance[:, 2:, None, None] < 0.5
        point = best.clone()
        point[index] = torch.where(up, self.high[index], self.low[index])
        return point


class MassMoves(Moves):
    """Patterns that take up what a second window gives back, so that the perturbation keeps its length (l2, l1)."""

    def __init__(self, threat: Threat, x: Tensor) -> None:
        super().__init__(threat, x)
        self.budget = threat.eps if math.isfinite(threat.eps) else float(threat.across(x[:1]))
        self._bumps: dict[tuple[int, int], Tensor] = {}

    def only(self, rows: Tensor) -> MassMoves:
        """See `Moves`."""
        return MassMoves(self.threat, self.x[rows])

    def start(self, random: Random) -> Tensor:
        """A grid of patterns, each with a sign for each channel and one of two ways to lie.

        In l2 they are scaled to the budget. In l1 each has length 1, and they are projected as they are, as released.
        """
        grid, norm = Grid.of(*self.x.shape[2:]), self.threat.norm
        sign = random.sign((self.x.shape[1], grid.down, grid.across), torch.float64)[..., None, None]
        delta = sign * self._bump((grid.rows, grid.columns))
        if grid.rows == grid.columns:
            lying = random.uniform((1, grid.down, grid.across), torch.float64)[..., None, None] < 0.5
            delta = torch.where(lying, delta, delta.mT)
        delta = self.threat.unit * self.threat.free(grid.filled(delta, *self.x.shape[2:]))
        if norm == "l2":
            delta = delta * per_row(self.budget / above_zero(norms(delta, norm)), delta)
        return self._at(delta)

    def draw(self, random: Random) -> Tensor:
        """Two places, a way to lie, and a sign for each channel."""
        return random.uniform((5 + self.x.shape[1],), torch.float64)

    def propose(self, best: Tensor, share: float, chance: Tensor) -> Tensor:
        """The second window is emptied; the first takes its length, all that was unused, and the pattern added."""
        norm, channels = self.threat.norm, best.shape[1]
        delta = best.double() - self.x.double()
        size = window_size(share, best.shape[2], best.shape[3], least=3, odd=True)
        index, other = (Windows.at(chance[:, at : at + 2], size, best).index for at in (0, 2))
        window = delta[index]
        unused = self._length(delta.flatten(1)[:, None]).view(-1, 1, 1, 1)
        delta[index] = 0
        if norm == "l2":
            unused = (self.budget**2 - unused**2).clamp(min=0) / channels
            length = (unused + self._sized(window) ** 2 + self._sized(delta[other]) ** 2).sqrt()
        else:
            unused = (self.budget - unused).clamp(min=0) / channels
            length = (unused + self._sized(window) + self._sized(delta[other])) * channels
        new = self._pattern(size, chance) + window / above_zero(self._sized(window))
        delta[other] = 0
        delta[index] = new / self._sized(new).clamp(min=1e-12) * length
        delta = self.threat.free(delta)
        if norm == "l2":
            delta *= per_row(self.budget / above_zero(norms(delta, norm)), delta)
        return self._at(delta)

    def _pattern(self, size: tuple[int, int], chance: Tensor) -> Tensor:
        """(N, C, rows, columns) the signed pattern, transposed for half of the images where it is square."""
        pattern = self._bump(size)
        sign = torch.where(chance[:, 5:, None, None] < 0.5, 1.0, -1.0).double()
        if size[0] == size[1]:
            pattern = torch.where(chance[:, 4, None, None, None] < 0.5, pattern, pattern.T)
        return sign * pattern

    def _bump(self, size: tuple[int, int]) -> Tensor:
        """(rows, columns) the pattern of this size, made once."""
        if size not in self._bumps:
            self._bumps[size] = bump(*size, self.threat.norm).to(self.x.device)
        return self._bumps[size]

    def _length(self, values: Tensor) -> Tensor:
        """(N, C) the length over all further axes."""
        size: Tensor = torch.linalg.vector_norm(values.flatten(2), 1 if self.threat.norm == "l1" else 2, dim=2)
        return size

    def _sized(self, values: Tensor) -> Tensor:
        return self._length(values)[:, :, None, None]

    def _at(self, delta: Tensor) -> Tensor:
        point = self.x.double() + delta
        return (
            project_l1(point, self.x, self.threat) if self.threat.norm == "l1" else self.threat.project(point, self.x)
        )


def moves_for(threat: Threat, x: Tensor) -> Moves:
    """The proposals of the threat's norm."""
    return LinfMoves(threat, x) if threat.norm == "linf" else MassMoves(threat, x)
