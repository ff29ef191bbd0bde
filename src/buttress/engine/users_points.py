"""What an attack of a user's own returns is looked at before it counts: a mistake there would pass for robustness."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.threat import Threat, budget_text

log = logging.getLogger(__name__)

_FAR = 2.0  # budgets; what is a little outside was left to the projection
_told: set[str] = set()  # attacks whose points have been called far once


def is_users(attack: object) -> bool:
    """Whether an attack's class is of a file or a package outside of this one."""
    return type(attack).__module__.partition(".")[0] != "buttress"


def checked_points(attack: Any, points: Any, x: Tensor, box: tuple[float, float] | None) -> Tensor:
    """The points of an attack, detached.

    Args:
        attack: whose they are.
        points: what it returned.
        x: (N, ...) the inputs that it was given.
        box: that they have to lie in where nothing puts them there; None for no limit.

    Raises:
        UserError: naming the attack, for what is no tensor, another shape, data type or device than that of the inputs,
            NaN and infinity, and points outside of ``box``.
    """
    name = registered_attacks.name_of(attack)
    if not isinstance(points, Tensor):
        raise UserError(f"{name} returned a {type(points).__name__}: perturb must return the moved inputs, a tensor")
    if points.shape != x.shape:
        raise UserError(
            f"{name} returned points of shape {tuple(points.shape)} for inputs of shape {tuple(x.shape)}: perturb must "
            "return one for each input, in their order"
        )
    if points.layout != torch.strided:
        raise UserError(f"{name} returned a tensor of layout {points.layout}: return points.to_dense()")
    if points.dtype != x.dtype or points.device != x.device:
        raise UserError(
            f"{name} returned {points.dtype} on {points.device} for inputs of {x.dtype} on {x.device}: "
            "return points.to(x)"
        )
    found: Tensor = points.detach()
    if not bool(found.isfinite().all()):
        bad = int((~found.flatten(1).isfinite()).any(1).sum())
        raise UserError(
            f"{name} returned NaN or infinity for {bad} of {len(x)} inputs, which would count as robust: see its "
            "divisions by 0 and the gradients that it is given"
        )
    if box is not None and not bool(((found >= box[0]) & (found <= box[1])).all()):
        low, high = map(float, torch.aminmax(found))
        raise UserError(
            f"{name} returned values from {low:.4g} to {high:.4g}, outside of its box {box}: clamp them into it"
        )
    return found


def check_untouched(attack: object, now: Tensor, before: Tensor, what: str) -> None:
    """Refuse an attack that has written over what it was given: its points would be measured from there.

    Raises:
        UserError: naming it.
    """
    if not torch.equal(now, before):
        name = registered_attacks.name_of(attack)
        raise UserError(f"{name} writes over {what} that it is given: begin with {what}.clone()")


def warn_of_far_points(attack: object, points: Tensor, x: Tensor, threat: Threat) -> None:
    """Log, once for each attack, points that lie far outside the threat, which projection makes into others."""
    name = registered_attacks.name_of(attack)
    if name in _told or not len(x):
        return
    farthest = float(threat.distance(points, x).max())
    if farthest > _FAR * threat.eps:
        _told.add(name)
        log.warning(
            "%s returns points up to %.3g away from their inputs, where %s %s is allowed: they are put inside the "
            "threat, and may be weaker there than what the attack meant",
            name,
            farthest,
            threat.norm,
            budget_text(threat.eps),
        )
