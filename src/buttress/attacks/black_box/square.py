"""Square: random search without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.black_box.square_moves import Moves, moves_for
from buttress.attacks.black_box.square_windows import share_at
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, per_row
from buttress.validation import number, whole

_LOOK = 50  # queries after which the work is narrowed to the inputs that are left


@attack("square")
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search by square windows (Andriushchenko et al., ECCV 2020), in l1 as in AutoAttack (Croce and Hein 2021).

    Each query changes one window of each image, at a place of its own, and is kept where the loss rises. An input that
    is fooled rests. Inputs without height and width are images of one channel and one row; where a square is too large
    for the image, the window is a rectangle of the same share.

    Unlike the authors' code and AutoAttack's: windows are drawn for each image, and may touch the last row and column,
    which theirs never do since they draw a place below ``height - side``. That is worth 9 points on 8x8 digits (500
    queries, linf 0.12, an adversarially trained CNN) and nothing on 28x28 ones (MNIST, linf 0.2, two seeds).

    Cost per input and restart: ``queries`` + 1 forwards at most, no backwards.

    Args:
        threat: what is allowed; a finite eps or a box.
        queries: proposals of each restart.
        restarts: independent runs; the point of the highest loss is returned.
        p: the share of the image that the first windows cover; it is halved again and again.
        rescale: stretch the schedule of that share, made for 10,000 queries, over ``queries``. AutoAttack does not.
        loss: name of a loss, or any callable (logits, y) -> (N,).
    """

    threat: Threat = NOT_GIVEN
    queries: int = 5000
    restarts: int = 1
    p: float = 0.8
    rescale: bool = False
    loss: LossLike = "margin"

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("restarts", self.restarts)
        whole("queries", self.queries)
        number("p", self.p, "(0, 1]")
        check_threat("Square", self.threat, finite=True)
        resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """Each restart its start and its queries."""
        return PassCount(self.restarts * (self.queries + 1))

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The first adversarial point, or the point of the highest loss."""
        images = x if x.dim() == 4 else x.reshape(len(x), 1, 1, -1)
        moves = moves_for(self.threat.reshaped(x.shape[1:], images.shape[1:]), images)
        result, highest = x, torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
        success = torch.zeros_like(highest, dtype=torch.bool)
        for restart in range(self.restarts):
            _rest(oracle, success)
            if oracle.done:
                break
            point, loss, won = self._run(oracle, moves, random.fork("restart", restart))
            taken = ~success & (won | (loss > highest))
            result = torch.where(per_row(taken, x), point, result)
            highest, success = torch.where(taken, loss, highest), success | won
        oracle.wake()
        return result

    def _run(self, oracle: Oracle, moves: Moves, random: Random) -> tuple[Tensor, Tensor, Tensor]:
        """One restart: (N, ...) the best points, (N,) their loss, and whether they fool the model."""
        rows = torch.arange(len(oracle.x), device=oracle.x.device)
        point = moves.start(random).view_as(oracle.x)
        loss, success = oracle.loss(point, self.loss), oracle.success | oracle.resting
        best, points = point.view_as(moves.x), point.clone()
        for query in range(self.queries):
            if query % oracle.read_every == 0:  # a look stalls a GPU
                _rest(oracle, success)
            if oracle.done:
                break
            if query % _LOOK == 0:
                left = (oracle.alive & ~oracle.resting)[rows].nonzero().squeeze(1)
                if len(left) < len(rows):
                    point = point.index_copy(0, rows, best.reshape(len(rows), *point.shape[1:]))
                    rows, moves, best = rows[left], moves.only(left), best[left]
            proposed = self._proposed(moves, best, query, moves.draw(random)[rows])
            points.index_copy_(0, rows, proposed.view(len(rows), *points.shape[1:]))
            value = oracle.loss(points, self.loss)
            taken = ~success & ((value > loss) | oracle.success)
            loss, success = torch.where(taken, value, loss), success | (taken & oracle.success)
            best = torch.where(taken[rows, None, None, None], proposed, best)
        return point.index_copy(0, rows, best.reshape(len(rows), *point.shape[1:])), loss, success

    def _proposed(self, moves: Moves, best: Tensor, query: int, chance: Tensor) -> Tensor:
        return moves.propose(best, share_at(query, self.p, self.queries, self.rescale), chance)


def _rest(oracle: Oracle, success: Tensor) -> None:
    """Rest inputs with an adversarial example; a search for the first success drops them once float32 confirms it."""
    if oracle.search == "full":
        oracle.rest(success)
