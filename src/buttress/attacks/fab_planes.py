"""The shortest way to a plane within the box, in each norm: the steps that FAB is made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from buttress.threat import Norm

_DUAL: dict[Norm, float] = {"linf": 1, "l2": 2, "l1": math.inf}


def plane_distance(value: Tensor, slope: Tensor, norm: Norm) -> Tensor:
    """(N, K) how far the plane value + slope . d = 0 is from d = 0, regardless of the box; infinite where it is none.

    Args:
        value: (N, K).
        slope: (N, K, D).
        norm: of d.
    """
    size: Tensor = torch.linalg.vector_norm(slope, _DUAL[norm], dim=2)
    return torch.where(size > 0, value.abs() / size.where(size > 0, 1), math.inf)


def to_plane(point: Tensor, value: Tensor, slope: Tensor, norm: Norm, box: tuple[float, float] | None) -> Tensor:
    """(N, D) the smallest d with value + slope . d = 0 and point + d in the box.

    Each coordinate can give so much and no more; what that adds up to, as the others move on, bends where one reaches
    the box. The bends are sorted, and the stretch in which the plane is met is a line (Croce and Hein, ICML 2020).
    Where no point of the box is on the plane, d leads to the corner nearest to it.

    Args:
        point: (N, D) float64, in the box.
        value: (N,) float64, what is to become 0.
        slope: (N, D) float64; a slope of 0 gives d = 0.
        norm: "linf", "l2" or "l1".
        box: the range of all coordinates, or None for no limit.
    """
    direction, rate, gain = -value.sign()[:, None] * slope.sign(), slope.abs(), value.abs()[:, None]
    room = torch.full_like(point, math.inf)
    if box is not None:
        room = torch.where(direction > 0, box[1] - point, point - box[0]).clamp(min=0)
    room = torch.where(direction == 0, 0, room)
    return direction * (_greedy(rate, room, gain) if norm == "l1" else _together(rate, room, gain, norm))


def _together(rate: Tensor, room: Tensor, gain: Tensor, norm: Norm) -> Tensor:
    """(N, D) min(t c, room) with the t that gains enough; c is 1 in linf, where all move alike, and the rate in l2."""
    pace = torch.where(rate > 0, 1.0, 0.0) if norm == "linf" else rate
    moves = (pace > 0) & (room > 0)
    bends, order = torch.where(moves, room / pace.where(moves, 1), 0).sort(dim=1)
    full = torch.where(moves, rate * room, 0).gather(1, order).cumsum(1)  # what those at the box have given
    open_ = (rate * pace).gather(1, order).flip(1).cumsum(1).flip(1)  # what one unit of t gives before each bend
    before = torch.nn.functional.pad(full[:, :-1], (1, 0))
    at_bend = before + bends * open_
    met = (at_bend < gain).sum(1, keepdim=True)  # bends passed on the way
    last = met.clamp(max=bends.shape[1] - 1)
    t = (gain - before.gather(1, last)) / open_.gather(1, last).clamp(min=1e-300)
    t = torch.where(met < bends.shape[1], t.minimum(bends.gather(1, last)), math.inf)
    return torch.where(bends_passed(room, pace, t), room, pace * t.nan_to_num(posinf=0))


def bends_passed(room: Tensor, pace: Tensor, t: Tensor) -> Tensor:
    """(N, D) bool, which coordinates have reached the box by ``t`` (N, 1)."""
    return room <= pace * t.where(t.isfinite(), 1e300)


def _greedy(rate: Tensor, room: Tensor, gain: Tensor) -> Tensor:
    """(N, D) the steepest coordinates go all the way, one goes as far as is needed, the others stay."""
    steepest, order = rate.sort(dim=1, descending=True)
    offered = torch.where(steepest > 0, steepest * room.gather(1, order), 0)
    before = torch.nn.functional.pad(offered.cumsum(1)[:, :-1], (1, 0))
    asked = (gain - before).clamp(min=0).minimum(offered)
    moved = torch.where(steepest > 0, asked / steepest.where(steepest > 0, 1), 0)
    return torch.zeros_like(rate).scatter_(1, order, moved)
