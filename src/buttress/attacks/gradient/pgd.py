"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from buttress.attacks.gradient.steepest_ascent import near_start, steepest_ascent, step_length
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, per_row
from buttress.validation import one_of, positive, whole

Start = Literal["zero", "uniform", "normal"]


@attack("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent from random starts (Madry et al., ICLR 2018).

    Cost per input and restart: ``steps`` forwards and backwards, and one forward when there is more than one restart.

    Args:
        threat: what is allowed.
        steps: gradient steps of each restart.
        step_size: length of a step in input units; 2.5 eps / steps unless given.
        restarts: independent runs; the point of the highest loss is returned.
        start: "uniform" in the threat; "normal" is x + 0.001 N(0, 1) in widths of the box, clipped by the first step
            only (the start of TRADES); "zero" is x itself.
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
        box_first: in l2 cut each step to the box before the ball, which wastes less of the budget where the box cuts
            (the released TRADES does); the ball first unless asked for. In linf and l1 both are one.
    """

    threat: Threat = NOT_GIVEN
    steps: int = 10
    step_size: float | None = None
    restarts: int = 1
    start: Start = "uniform"
    loss: LossLike | None = None
    box_first: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        whole("restarts", self.restarts)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        one_of("start", self.start, get_args(Start))
        if self.loss is not None:
            resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """Each step's, and a forward at the end of each of several restarts."""
        ends = self.restarts if self.restarts > 1 else 0
        return PassCount(self.steps * self.restarts + ends, self.steps * self.restarts)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate of the restart that ends with the highest loss."""
        step_size = step_length(self.threat, self.step_size, self.steps)
        best, best_loss = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        for _ in range(self.restarts):
            start = self._start(x, random)
            x_adv = steepest_ascent(
                oracle,
                x,
                start,
                self.threat,
                steps=self.steps,
                step_size=step_size,
                loss=self.loss,
                box_first=self.box_first,
            )
            if self.restarts == 1 or oracle.done:
                return x_adv
            loss = oracle.loss(x_adv, self.loss)
            better = loss > best_loss
            best, best_loss = torch.where(per_row(better, x), x_adv, best), torch.where(better, loss, best_loss)
        return best

    def _start(self, x: Tensor, random: Random) -> Tensor:
        if self.start == "uniform":
            return self.threat.random_start(x, random)
        return near_start(self.threat, x, random) if self.start == "normal" else x
