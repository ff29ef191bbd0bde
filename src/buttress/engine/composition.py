"""Attacks made of attacks: each part searches the inputs that are left, and its passes are counted by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from buttress.engine.oracle import Oracle
from buttress.random import Random

if TYPE_CHECKING:
    from buttress.engine.attack import Attack


def staged(oracle: Oracle, attack: Attack, rows: Tensor, random: Random, name: str) -> tuple[Tensor, Tensor]:
    """Run ``attack`` on some inputs of ``oracle``, each until its first success.

    Args:
        oracle: of the whole; its counts grow, and with ``search="first"`` successes leave it.
        attack: the part.
        rows: (M,) indices.
        random: of the whole; the part draws from a stream named after it, whatever was drawn before.
        name: of the part, in `AttackResult.stages` and for its draws.

    Returns:
        (M, ...) points inside the part's threat, and (M,) bool which of them are adversarial, confirmed in float32.
    """
    part = oracle.only(rows, inside=attack.inside())
    if not len(rows):
        return part.x, part.alive
    points = attack.points(part, part.x, part.y, random.only(rows).fork(name))
    points, output = part.settle(attack.threat.project(points, part.x))
    return points, oracle.merge(part, rows, points, output, name)
