"""The shortest way to a plane within the box, in each norm: the steps that FAB is made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from buttress.float64 import above_zero
from buttress.threat import Norm
from buttress.threat.box import Ends

_DUAL: dict[Norm, float] = {"linf": 1, "l2": 2, "l1": math.inf}


def plane_distance(value: Tensor, slope: Tensor, norm: Norm) -> Tensor:
    """(...) how far the plane value + slope . d = 0 is from d = 0, regardless of the box; infinite where it is none.

    Args:
        value: (...), such as (N,).
        slope: (..., D).
        norm: of d.
    """
    size: Tensor = torch.linalg.vector_norm(slope, _DUAL[norm], dim=-1)
    return torch.where(size > 0, value.abs() / size.where(size > 0, 1), math.inf)


def to_plane(
    point: Tensor, value: Tensor, slope: Tensor, norm: Norm, box: Ends | None, pace: Tensor | None = None
) -> Tensor:
    """(N, D) the smallest d with value + slope . d = 0 and point + d in the box.

    Each coordinate can give so much and no more; what that adds up to, as the others move on, bends where one reaches
    the box, and the stretch in which the plane is met is a line (Croce and Hein, ICML 2020).
    Where no point of the box is on the plane, d leads to the corner nearest to it.

    Args:
        point: (N, D) float64, in the box.
        value: (N,) float64, what is to become 0.
        slope: (N, D) float64; a slope of 0 gives d = 0.
        norm: "linf", "l2" or "l1".
        box: the lowest and highest value, of all coordinates or (N, D), or None for no limit.
        pace: in linf, (D,) how much of the way each coordinate goes; all alike unless given.
    """
    direction, rate, gain = -value.sign()[:, None] * slope.sign(), slope.abs(), value.abs()[:, None]
    room = torch.full_like(point, math.inf)
    if box is not None:
        room = torch.where(direction > 0, box[1] - point, point - box[0]).clamp(min=0)
    room = torch.where(direction == 0, 0, room)
    return direction * (_greedy(rate, room, gain) if norm == "l1" else _together(rate, room, gain, norm, pace))


def _together(rate: Tensor, room: Tensor, gain: Tensor, norm: Norm, pace: Tensor | None) -> Tensor:
    """(N, D) min(t c, room) with the t that gains enough; c is the pace in linf, and the rate in l2.

    What is gained is a concave function of t made of lines, so Newton's steps from the left rise to the answer and end
    there: each closes at least one more coordinate, and few are needed. Sorting the bends takes several times as long.
    """
    pace = torch.where(rate > 0, 1.0 if pace is None else pace, 0.0).to(rate.dtype) if norm == "linf" else rate
    offer, speed = torch.where(rate > 0, rate * room, 0), torch.where(room > 0, rate * pace, 0)
    far = 1e300 if room.dtype == torch.float64 else 1e30  # farther than any box
    t = gain / above_zero(speed.sum(1, keepdim=True))
    for step in range(rate.shape[1] + 1):
        closed = room <= pace * t.clamp(max=far)
        left = gain - torch.where(closed, offer, 0).sum(1, keepdim=True)
        open_ = torch.where(closed, 0, speed).sum(1, keepdim=True)
        following = torch.where(open_ > 0, left / above_zero(open_), math.inf).maximum(t)
        if step % 4 == 3 and bool((following <= t * (1 + 1e-15)).all()):
            break
        t = following
    t = t.clamp(max=far)
    return torch.where(room <= pace * t, room, pace * t)


def _greedy(rate: Tensor, room: Tensor, gain: Tensor) -> Tensor:
    """(N, D) the steepest coordinates go all the way, one goes as far as is needed, the others stay."""
    steepest, order = rate.sort(dim=1, descending=True)
    most = torch.where(steepest > 0, steepest * room.gather(1, order), 0)
    before = torch.nn.functional.pad(most.cumsum(1)[:, :-1], (1, 0))
    need = (gain - before).clamp(min=0).minimum(most)
    moved = torch.where(steepest > 0, need / steepest.where(steepest > 0, 1), 0)
    return torch.zeros_like(rate).scatter_(1, order, moved)
