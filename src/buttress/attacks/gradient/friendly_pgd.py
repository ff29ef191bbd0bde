"""Friendly PGD: as soon as it has won it goes only a little further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from buttress.attacks.gradient.pgd import Start
from buttress.attacks.gradient.steepest_ascent import near_start, step_length
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, per_row
from buttress.validation import one_of, positive, whole


@attack("friendly-pgd")
@dataclass(frozen=True, kw_only=True)
class FriendlyPGD(Attack):
    """PGD that stops, input by input, ``tau`` steps after the point is misclassified (Zhang et al., ICML 2020).

    Algorithm 1, PGD-K-tau: the attack of friendly adversarial training, which learns from the least adversarial of the
    points that are wrong, not from the worst. The noise of 0.001 that the authors' code adds to each step is left out.
    As an attack it finds what PGD finds with less far points. Under a
    target, that is reached in place of misclassified. Cost per input: ``steps`` forwards and backwards at most, and
    exactly that unless ``spare``.

    Args:
        threat: what is allowed.
        steps: the most gradient steps that an input takes.
        step_size: length of a step in input units; 2.5 eps / steps unless given.
        tau: steps that are taken from misclassified points.
        start: "uniform", "normal" or "zero", as in PGD.
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
        spare: leave out of the passes what has stopped: the paper's saving, for one forward pass more where an input
            was left out, and a reading from the device at each step. In train mode BatchNorm then sees fewer inputs.
    """

    threat: Threat = NOT_GIVEN
    steps: int = 10
    step_size: float | None = None
    tau: int = 0
    start: Start = "uniform"
    loss: LossLike | None = None
    spare: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        whole("tau", self.tau, 0)
        one_of("start", self.start, get_args(Start))
        if self.loss is not None:
            resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """A forward and a backward each step."""
        return PassCount(self.steps, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """Where each input stopped."""
        step_size = step_length(self.threat, self.step_size, self.steps)
        project, x_adv = self.threat.projector(x), self._start(x, random)
        left = torch.full((len(x),), self.tau, device=x.device)
        moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.steps):
            if oracle.done or (self.spare and not bool(moving.any())):
                break
            grad, lost = self._asked(oracle, x_adv, moving)
            moving = moving & ~(lost & (left == 0))
            left = left - (lost & moving).long()
            ahead = project(self.threat.ascend(x_adv, grad, step_size))
            x_adv = torch.where(per_row(moving, x), ahead, x_adv)
        return project(x_adv)

    def _asked(self, oracle: Oracle, x_adv: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient at each point and (N,) bool whether it has won; where inputs are spared, of the moving ones."""
        if not self.spare or bool(moving.all()):
            _, grad = oracle.loss_and_grad(x_adv, self.loss)
            return grad, oracle.success.clone()
        rows = (moving & oracle.alive).nonzero().squeeze(1)
        grad, lost = torch.zeros_like(x_adv), ~moving
        if len(rows):
            part = oracle.only(rows, search="full")
            _, grad[rows] = part.loss_and_grad(x_adv[rows], self.loss)
            lost[rows] = part.success
            oracle.ledger.add(part.ledger, rows)
        return grad, lost

    def _start(self, x: Tensor, random: Random) -> Tensor:
        if self.start == "uniform":
            return self.threat.random_start(x, random)
        return near_start(self.threat, x, random) if self.start == "normal" else x
