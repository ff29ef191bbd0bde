"""JSMA: pairs of features, chosen by what the logits' slopes say of both together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.losses import Loss
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, per_row
from buttress.validation import number, whole

_CANDIDATES = 128  # features whose pairs are looked at
_ROWS = 256  # inputs whose pairs are held at once


@attack("jsma")
@dataclass(frozen=True, kw_only=True)
class JSMA(Attack):
    """The Jacobian-based saliency map attack (Papernot et al., EuroS&P 2016): few features, changed by much.

    Each step moves by ``theta`` the pair of features that maximises minus the product of the target logit's slope and
    the slope of the sum of the others, where the first is positive and the second negative (with a negative ``theta``
    the other way round). An input stays as it is once it fools the model, or when there is no such pair. Without a
    target the class aimed at is the likeliest wrong one at each step. Our choices: of the features, the pairs among the
    128 with the largest sum of both slopes, each over its mean size, are looked at, which is all pairs of inputs no
    larger than that; a feature leaves at the edge of the box, or of the threat in linf; with two classes the
    logits are centred, for one logit would have no other.

    Cost per input: ``steps`` forwards and 2 ``steps`` backwards at most, whatever the number of classes.

    Args:
        threat: what is allowed; unless given any value in the box.
        theta: change of a feature in one step, in widths of the box (see `Threat.widths`); may be negative.
        gamma: share of the features that may change; at least two may.
        steps: pairs changed at most.
    """

    needs_classes = True

    default_threat: ClassVar[Threat] = Threat(norm="linf", eps=math.inf)
    threat: Threat = NOT_GIVEN
    theta: float = 1.0
    gamma: float = 0.1
    steps: int = 200

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        if not number("theta", self.theta):
            raise UserError(f"theta must be a finite number other than 0, in widths of the box; got {self.theta}")
        number("gamma", self.gamma, "(0, 1]")
        check_threat("JSMA", self.threat)

    def search_passes(self, classes: int) -> PassCount:
        """A forward and two gradients each step."""
        return PassCount(self.steps, 2 * self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate."""
        x_adv, most = x, max(2, int(self.gamma * x[0].numel()))
        sign = math.copysign(1.0, self.theta)
        limit, widths = self._limit(x), self.threat.widths(x)
        active = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.steps):
            oracle.rest(~active)
            if oracle.done:
                break
            slopes = oracle.gradients(x_adv, (_WANTED, _OTHERS))
            active = active & ~oracle.success
            rows = active.nonzero().squeeze(1)
            if not len(rows):
                break
            wanted, others = (sign * (widths * slope[rows]).flatten(1) for slope in slopes)
            changed, free = ((x_adv[rows] != end[rows]).flatten(1) for end in (x, limit))
            room = most - changed.sum(1)
            pair, exists = best_pairs(wanted, others, free, changed, room, at_once=oracle.runner.batch_size)
            active[rows] = exists
            move = torch.zeros_like(wanted).scatter_(1, pair, self.theta).view_as(x[rows]) * widths
            moved = self.threat.project(x_adv[rows] + move, x[rows])
            x_adv = x_adv.index_copy(0, rows, torch.where(per_row(exists, moved), moved, x_adv[rows]))
        oracle.wake()
        return x_adv

    def _limit(self, x: Tensor) -> Tensor:
        """(N, ...) how far each feature can go the way of ``theta``."""
        ends = self.threat.cube(x) if self.threat.norm == "linf" else self.threat.limits(x)
        return ends[int(self.theta > 0)].expand_as(x)


def best_pairs(
    wanted: Tensor, others: Tensor, free: Tensor, changed: Tensor, room: Tensor, at_once: int = _ROWS
) -> tuple[Tensor, Tensor]:
    """The pair of features to raise in each row: (N, 2) indices, and (N,) bool, whether there is one.

    Args:
        wanted: (N, D) slopes of the wanted class's logit.
        others: (N, D) slopes of the sum of the other logits.
        free: (N, D) bool, the features that can be raised.
        changed: (N, D) bool, the features that have been changed before.
        room: (N,) how many others may be.
        at_once: rows whose pairs are held together, 256 at most.
    """
    count = min(_CANDIDATES, wanted.shape[1])
    sizes = [slope.abs().mean(1, keepdim=True).clamp(min=1e-30) for slope in (wanted, others)]
    rank = (wanted / sizes[0] - others / sizes[1]).masked_fill(~free, -torch.inf)
    rank = rank.masked_fill((room[:, None] < 1) & ~changed, -torch.inf)
    # A stable sort, for topk orders equal features differently from batch to batch.
    candidates = rank.sort(dim=1, descending=True, stable=True).indices[:, :count]
    usable = rank.gather(1, candidates) > -torch.inf
    new = (~changed).gather(1, candidates).long()
    up, down = wanted.gather(1, candidates), others.gather(1, candidates)
    apart = ~torch.eye(count, dtype=torch.bool, device=wanted.device)
    pairs, exists = [], []
    size = min(at_once, _ROWS)
    for part in (slice(start, start + size) for start in range(0, len(wanted), size)):
        rise, fall = _sums(up[part]), _sums(down[part])
        fits = _both(usable[part]) & apart & (_sums(new[part]) <= room[part, None, None])
        score = torch.where(fits & (rise > 0) & (fall < 0), -rise * fall, 0).flatten(1)
        best, index = score.max(1)
        pairs.append(torch.stack([index // count, index % count], 1))
        exists.append(best > 0)
    return candidates.gather(1, torch.cat(pairs)), torch.cat(exists)


def _sums(values: Tensor) -> Tensor:
    """(M, K) as (M, K, K) sums of two."""
    return values[:, :, None] + values[:, None, :]


def _both(flags: Tensor) -> Tensor:
    return flags[:, :, None] & flags[:, None, :]


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True) if logits.shape[1] == 2 else logits


def _runner_up(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) the likeliest class other than ``y``."""
    return logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1)


def _logit(logits: Tensor, wanted: Tensor) -> Tensor:
    return _centred(logits).gather(1, wanted[:, None]).squeeze(1)


def _other_logits(logits: Tensor, wanted: Tensor) -> Tensor:
    return _centred(logits).sum(1) - _logit(logits, wanted)


_WANTED = Loss(lambda logits, y: _logit(logits, _runner_up(logits, y)), targeted=_logit)
_OTHERS = Loss(lambda logits, y: _other_logits(logits, _runner_up(logits, y)), targeted=_other_logits)
