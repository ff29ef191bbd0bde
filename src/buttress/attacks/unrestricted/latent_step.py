"""Moving inputs in a network's latent space: encode, step across a class boundary, decode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from buttress.attacks.corruptions.noises import Noise
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import norms, per_row
from buttress.validation import not_negative, whole


class Directions(nn.Module, ABC):
    """Where a latent vector moves. State is kept in buffers and parameters, so that it is part of the fingerprint."""

    @abstractmethod
    def forward(self, z: Tensor, y: Tensor, target: Tensor, random: Random) -> Tensor:
        """(N, d) directions.

        Args:
            z: (N, d) latent vectors.
            y: (N,) the classes that they are of.
            target: (N,) the classes that they shall move to.
            random: this batch's draws.
        """


class RandomDirections(Directions):
    """Independent normal numbers, whatever the class.

    Args:
        std: their standard deviation; a tenth in the code of Zhou et al.
        normalize: whether each direction is scaled to length 1.
    """

    std: Tensor
    normalize: Tensor

    def __init__(self, std: float = 0.1, normalize: bool = False) -> None:
        super().__init__()
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64))
        self.register_buffer("normalize", torch.tensor(normalize))

    def forward(self, z: Tensor, y: Tensor, target: Tensor, random: Random) -> Tensor:
        """(N, d) draws, one stream per input."""
        drawn = random.normal(z.shape[1:], z.dtype) * float(self.std)
        return unit(drawn) if self.normalize else drawn


def unit(directions: Tensor) -> Tensor:
    """(N, d) directions of length 1; one of length 0 stays."""
    return directions / norms(directions, "l2")[:, None].clamp(min=torch.finfo(directions.dtype).tiny)


class LatentSpace(nn.Module):
    """An encoder, its decoder and directions to move in, all of them fitted and frozen.

    Args:
        encoder: (N, ...) inputs -> (N, d) vectors.
        decoder: (N, d) vectors -> inputs of the encoder's shape.
        directions: where to move.
        classes: how many classes there are, 2 or more.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, directions: Directions, classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.directions, self.classes = encoder, decoder, directions, classes
        self.eval().requires_grad_(False).zero_grad()

    def encode(self, x: Tensor) -> Tensor:
        """(N, d) vectors, in the dtype of the encoder's weights."""
        like = next(self.encoder.parameters(), x)
        with torch.no_grad():
            z: Tensor = self.encoder(x.to(like.dtype))
        return z

    def decode(self, z: Tensor, like: Tensor) -> Tensor:
        """Inputs of these vectors, in the dtype of ``like``."""
        with torch.no_grad():
            made: Tensor = self.decoder(z)
        return made.to(like.dtype)

    def targets(self, y: Tensor, random: Random) -> Tensor:
        """(N,) classes to move to, uniform over those that are not ``y``."""
        return (y + 1 + random.fork("target").integers(self.classes - 1)) % self.classes

    def moves(self, z: Tensor, y: Tensor, target: Tensor, random: Random) -> Tensor:
        """(N, d) directions."""
        with torch.no_grad():
            moves: Tensor = self.directions(z, y, target, random.fork("direction"))
        return moves


@attack("ladder")
@dataclass(frozen=True, kw_only=True)
class Ladder(Noise):
    """An input's latent vector moved towards another class, and decoded.

    Stage 4 of Zhou, Tsang and Yin (Machine Learning 2022): ``decode(encode(x) + eps * direction)``, cut off at the box.
    The target is drawn uniformly from the other classes unless the caller gives one. There is no budget in input units:
    the size of ``x_adv - x`` also holds the decoder's own error, and at a large ``eps`` the label can become wrong.
    `defences.ladder.latent_space.fit_space` fits a space, and a prepared `LADDER` has one as ``space``. Without a
    space inputs are their own latent vectors and move along normal numbers of standard deviation 0.1, in widths of the
    box, which is the plainest of the baselines.

    Cost: one pass of encoder and decoder, which are not counted; ``adaptive`` adds a forward pass of the attacked
    network and one of the decoder per try, and one forward pass for the input.

    Args:
        eps: length of the move, in units of the directions; where ``adaptive``, the first that is tried.
        adaptive: whether a longer move is tried until the network's answer is not the one for the input. The length
            grows by 0.1 while it is below 1 and by 1 from there on (in the authors' code the rounding of sums of 0.1
            may add one more step of 0.1 there). An input whose answer never changes keeps its last.
        tries: how many lengths are tried at most, the first one included; 11 in the authors' code, whose ten count
            those after it.
        limit: the first length that is not below this one is the last.
        space: a `LatentSpace`.
        box: the range (low, high) that inputs live in and the result is clipped to, or None for no limit.

    Raises:
        UserError: for settings that mean nothing; when called, for a space that is none.
    """

    needs_classes = True

    eps: float = 0.5
    adaptive: bool = False
    tries: int = 11
    limit: float = 26.0
    space: nn.Module | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        not_negative("eps", self.eps)
        not_negative("limit", self.limit)
        whole("tries", self.tries)
        if self.space is not None and not isinstance(self.space, nn.Module):
            raise UserError(f"space must be a LatentSpace; got {type(self.space).__name__}")

    def search_passes(self, classes: int) -> PassCount:
        """The input and each try, where moves grow."""
        return PassCount(self.tries + 1 if self.adaptive else 0)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The decoded inputs."""
        space = self._space(x)
        z = space.encode(x)
        target = space.targets(y, random) if oracle.target is None else oracle.target
        moves = space.moves(z, y, target, random)
        if self.space is None:
            moves = moves * self.widths(x).expand(x.shape[1:]).flatten()
        size = torch.full((len(x),), self.eps, dtype=z.dtype, device=z.device)
        moved = self._made(space, z, size, moves, x)
        return self._further(oracle, space, x, z, moves, size, moved) if self.adaptive else moved

    def _further(
        self, oracle: Oracle, space: LatentSpace, x: Tensor, z: Tensor, moves: Tensor, size: Tensor, moved: Tensor
    ) -> Tensor:
        """Longer moves for the inputs whose answer stays."""
        answer = oracle.logits(x).argmax(1)
        for attempt in range(self.tries):
            stays = oracle.logits(moved).argmax(1) == answer
            longer = torch.where(size < 1 - 1e-6, size + 0.1, size + 1)  # sums of 0.1 may be a little less than 1
            stays &= (size < self.limit - 1e-6) & oracle.alive
            if attempt + 1 == self.tries or not stays.any():
                break
            size = torch.where(stays, longer, size)
            moved = torch.where(per_row(stays, x), self._made(space, z, size, moves, x), moved)
        return moved

    def _made(self, space: LatentSpace, z: Tensor, size: Tensor, moves: Tensor, x: Tensor) -> Tensor:
        return self.clip(space.decode(z + size[:, None] * moves, x))

    def _space(self, x: Tensor) -> LatentSpace:
        """The space on the inputs' device; without one, the inputs themselves."""
        space: Any = self.space
        if space is None:
            return LatentSpace(nn.Flatten(), nn.Unflatten(1, x.shape[1:]), RandomDirections(), 2)
        if not isinstance(space, LatentSpace):
            raise UserError(f"space must be a LatentSpace, as fit_space returns it; got {type(space).__name__}")
        return space.to(x.device)
