"""The loop that FGSM, BIM and PGD share: steps of steepest ascent, each projected back into the threat."""

from __future__ import annotations

import math

from torch import Tensor

from buttress.engine.oracle import Oracle
from buttress.errors import UserError
from buttress.losses import LossLike
from buttress.random import Random
from buttress.threat import Threat


def step_length(threat: Threat, step_size: float | None, steps: int) -> float:
    """``step_size``, or 2.5 eps / steps (Madry et al., ICLR 2018) where it is None.

    Raises:
        UserError: when there is none and ``eps`` is infinite without a box to take the size from.
    """
    return 2.5 * reach(threat) / max(steps, 1) if step_size is None else step_size


def reach(threat: Threat) -> float:
    """The length that default step sizes are made from: ``eps``, or the box's largest width where that is infinite.

    Raises:
        UserError: when ``eps`` is infinite and the box has no end.
    """
    if math.isfinite(threat.eps):
        return threat.eps
    if not threat.bounded:
        raise UserError(
            f"an infinite eps without a box of finite ends sets no step size; got {threat.box_text}: give a finite "
            "eps, such a box or a step_size"
        )
    return threat.widest


def near_start(threat: Threat, x: Tensor, random: Random) -> Tensor:
    """(N, ...) inputs with normal noise of a thousandth of the box's width, as TRADES starts; not yet in the box."""
    return x + 0.001 * threat.widths(x) * threat.free(random.normal(x.shape[1:], x.dtype))


def steepest_ascent(
    oracle: Oracle,
    x: Tensor,
    start: Tensor,
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    loss: LossLike | None,
    box_first: bool = False,
) -> Tensor:
    """The last iterate after ``steps`` steps from ``start``; with ``box_first`` cut to the box, then to the ball."""
    x_adv, project = start, threat.projector(x)
    for _ in range(steps):
        if oracle.done:
            break
        _, grad = oracle.loss_and_grad(x_adv, loss)
        moved = threat.ascend(x_adv, grad, step_size)
        x_adv = project(threat.clip(moved, x) if box_first else moved)
    return x_adv
