"""The plane of a loss surface: the direction that a gradient or an attack gives, and a random one across it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from buttress.random import Random
from buttress.threat import Threat, per_row

_TINY = 1e-9  # what rounding leaves of a direction that lies along the other one, as a share of its length


def steepest(threat: Threat, x: Tensor, grad: Tensor) -> Tensor:
    """(N, ...) float64 steps of size eps along the steepest direction of the threat's norm; 0 where ``grad`` is."""
    start = x.double()
    return threat.ascend(start, grad.double(), threat.eps) - start


def towards(threat: Threat, x: Tensor, x_adv: Tensor) -> Tensor:
    """(N, ...) float64 steps of size eps from ``x`` towards ``x_adv``; 0 where these are the same."""
    return _sized(threat, x_adv.double() - x.double())


def across(threat: Threat, step: Tensor, random: Random) -> Tensor:
    """(N, ...) float64 random steps of size eps at right angles to ``step``.

    Uniform numbers in linf, where random corners would often lie along a step to one, and normal numbers in l2 and l1;
    less their part along ``step``. 0 where a single feature may change, which leaves no other direction.
    """
    shape = step.shape[1:]
    even = threat.norm == "linf"
    draw = 2 * random.uniform(shape, torch.float64) - 1 if even else random.normal(shape, torch.float64)
    drawn = threat.shared(draw).flatten(1)
    along = step.flatten(1)
    rest = drawn - along * _share(drawn, along)
    rest = rest - along * _share(rest, along)  # once more: what rounding left the first time
    length = torch.linalg.vector_norm
    rest = rest.where((length(rest, dim=1) > _TINY * length(drawn, dim=1))[:, None], 0.0)
    return _sized(threat, rest.view_as(step))


def random_steps(threat: Threat, like: Tensor, random: Random, count: int) -> Iterator[Tensor]:
    """Random steps (N, ...) of size eps, each followed by its opposite: corners in linf, else normal directions."""
    draw = random.sign if threat.norm == "linf" else random.normal
    for _ in range(count):
        step = _sized(threat, threat.shared(draw(like.shape[1:], torch.float64)))
        yield from (step, -step)


def moved(threat: Threat, x: Tensor, step: Tensor) -> Tensor:
    """``x`` after a float64 step, put back into the range of inputs."""
    points = (x.double() + step).to(x.dtype)
    return threat.clip(points, x.expand_as(points))


def budget_line(threat: Threat, along: Tensor, across: Tensor, points: int = 96) -> tuple[list[float], list[float]]:
    """Where the budget ends in the plane of two steps (1, ...) of size eps, in multiples of them; a closed line.

    Empty where the two span no plane.
    """
    if not (bool(along.any()) and bool(across.any())):
        return [], []
    angles = torch.linspace(0, 2 * math.pi, points, dtype=torch.float64, device=along.device)
    sizes = threat.size(per_row(angles.cos(), along) * along + per_row(angles.sin(), along) * across)
    reach = threat.eps / sizes
    return (reach * angles.cos()).tolist(), (reach * angles.sin()).tolist()


def _share(rows: Tensor, along: Tensor) -> Tensor:
    """(N, 1) of each row the coefficient along the other; 0 where that is 0."""
    square = along.square().sum(1, keepdim=True)
    return torch.where(square > 0, (rows * along).sum(1, keepdim=True) / square.where(square > 0, 1.0), 0.0)


def _sized(threat: Threat, steps: Tensor) -> Tensor:
    """Steps at the size eps; 0 stays 0."""
    size = threat.size(steps)
    return steps * per_row(torch.where(size > 0, threat.eps / size.where(size > 0, 1.0), 0.0), steps)
