"""Minimum-norm attacks: they share a record of the smallest successful perturbation of each input.

Annotations are evaluated here: as texts they would be looked up in the files of subclasses, which need not know them.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.threat import NOT_GIVEN, Threat, per_row


@dataclass(frozen=True, kw_only=True)
class MinimumNorm(Attack):
    """An attack that looks for the smallest perturbation that fools the model, rather than for any within a budget.

    Its threat's ``eps`` is infinite unless given; `AttackResult.success` then says where one was found, and
    `AttackResult.distance` how large it is. With a finite ``eps`` the smallest one counts where it is within.
    """

    strays = True
    exact = True  # its best points lie on the boundary, where bf16 cannot separate the sides
    default_threat: ClassVar[Threat] = Threat(norm="l2", eps=math.inf)
    threat: Threat = NOT_GIVEN


class Smallest:
    """The smallest perturbation found so far, for each input; inputs misclassified unperturbed have it at 0.

    Attributes:
        point: (N, ...) where it leads to; the input itself where none was found.
        distance: (N,) float64, its size; infinite where none was found.
    """

    def __init__(self, oracle: Oracle, threat: Threat) -> None:
        wrong = oracle.task.is_adversarial(oracle.clean, oracle.y, oracle.target)
        self.oracle, self.threat, self.point = oracle, threat, oracle.x.clone()
        self.distance = torch.where(wrong, 0.0, math.inf).double()

    @property
    def settled(self) -> Tensor:
        """(N,) bool, the inputs misclassified as they are: there is nothing to look for."""
        return self.distance == 0

    @property
    def successful(self) -> Tensor:
        """(N,) bool, the inputs with a successful perturbation."""
        return self.distance.isfinite()

    def offer(self, points: Tensor, success: Tensor | None = None) -> Tensor:
        """Take over adversarial points that are nearer; (N,) bool, which were taken: none of rows that rest.

        Args:
            points: (N, ...) in the box.
            success: (N,) bool, whether they fool the model; as the oracle's last answer says unless given.
        """
        success = self.oracle.success if success is None else success
        distance = self.threat.distance(points, self.oracle.x)
        taken = success & ~self.oracle.resting & (distance < self.distance)
        self.point = torch.where(per_row(taken, points), points, self.point)
        self.distance = torch.where(taken, distance, self.distance)
        return taken
