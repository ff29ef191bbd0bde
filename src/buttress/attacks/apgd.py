"""Auto-PGD: projected gradient descent with momentum that chooses its own step sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.base import Attack
from buttress.attacks.oracle import Oracle
from buttress.attacks.pgd import check_steps
from buttress.attacks.steepest import reach
from buttress.errors import UserError
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import Threat, norms, per_row

_MOMENTUM = 0.75  # alpha in the paper: the share of the new step, the rest repeats the step before


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step size may be halved: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    interval, shortest, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = [], interval
    while at <= steps:
        found.append(at)
        interval = max(interval - shrink, shortest)
        at += interval
    return found


@attack("apgd")
@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD (Croce and Hein, ICML 2020, algorithm 1), in linf and l2 as published with AutoAttack.

    In l1 the same scheme takes the threat's own steps and projection; it is not the L1 form of Croce and Hein (ICML
    2021). Returned for each input: the last iterate that beat the model, in the first restart that had one, as the
    search's precision saw it; where none did, the point of the highest loss.

    Cost per input and restart: ``steps`` + 1 forwards and ``steps`` backwards.

    Args:
        threat: what is allowed.
        steps: gradient steps of each restart.
        restarts: independent runs.
        loss: "cross_entropy", "dlr", another loss's name, or any callable (logits, y) -> (N,); cross-entropy for
            classifiers unless given.
        rho: the step size is halved where fewer than this share of an interval's steps raised the loss.
    """

    threat: Threat = Threat()
    steps: int = 100
    restarts: int = 1
    loss: LossLike | None = None
    rho: float = 0.75

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_steps(self.steps, self.restarts)
        if not 0 <= self.rho <= 1:
            raise UserError(f"rho must be a share from 0 to 1; got {self.rho}")
        if self.loss is not None:
            resolve(self.loss)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """See the class: the last point that beat the model, else the point of the highest loss."""
        result, highest = x, torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
        beaten = torch.zeros_like(highest, dtype=torch.bool)
        for _ in range(self.restarts):
            if oracle.done:
                break
            point, loss, won = self._run(oracle, x, self._start(x, random))
            taken = ~beaten & (won | (loss > highest))
            result = torch.where(per_row(taken, x), point, result)
            highest, beaten = torch.where(taken, loss, highest), beaten | won
        return result

    def _start(self, x: Tensor, random: Random) -> Tensor:
        """On the surface of the ball: a random point of the cube, or a random direction, scaled to length eps."""
        if math.isinf(self.threat.eps):
            return self.threat.random_start(x, random)
        shape, norm = x.shape[1:], self.threat.norm
        delta = 2 * random.uniform(shape, x.dtype) - 1 if norm == "linf" else random.normal(shape, x.dtype)
        if norm != "l1":
            delta = delta * per_row(self.threat.eps / norms(delta, norm).clamp(min=1e-30), x)
        return self.threat.project(x + delta, x)

    def _run(self, oracle: Oracle, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One restart: the point to return, the highest loss met, and whether an iterate beat the model."""
        project = self.threat.projector(x)
        loss, grad = oracle.loss_and_grad(start, self.loss)
        x_adv = previous = best = last_beaten = start
        best_loss = loss_at_check = loss
        best_grad, beaten = grad, oracle.beaten.clone()
        step_size = torch.full_like(loss, reach(self.threat) * (1 if self.threat.norm == "l1" else 2))
        halved = torch.ones_like(beaten)  # so that a lack of progress counts from the second checkpoint on
        rises, last_check, checks = torch.zeros_like(loss), 0, checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            if oracle.done:
                break
            target = project(self.threat.ascend(x_adv, grad, step_size))
            share = _MOMENTUM if step > 1 else 1.0
            moved = x_adv + share * (target - x_adv) + (1 - share) * (x_adv - previous)
            previous, x_adv, before = x_adv, project(moved), loss
            if step < self.steps:
                loss, grad = oracle.loss_and_grad(x_adv, self.loss)
            else:
                loss = oracle.loss(x_adv, self.loss)
            last_beaten = torch.where(per_row(oracle.beaten, x), x_adv, last_beaten)
            beaten |= oracle.beaten
            rises += loss > before
            better = loss > best_loss
            best, best_loss = torch.where(per_row(better, x), x_adv, best), torch.where(better, loss, best_loss)
            best_grad = torch.where(per_row(better, x), grad, best_grad)
            if step in checks:
                halve = (rises <= self.rho * (step - last_check)) | (~halved & (best_loss <= loss_at_check))
                step_size = torch.where(halve, step_size / 2, step_size)
                x_adv = torch.where(per_row(halve, x), best, x_adv)
                grad = torch.where(per_row(halve, x), best_grad, grad)
                halved, loss_at_check, last_check = halve, best_loss, step
                rises = torch.zeros_like(rises)
        return torch.where(per_row(beaten, x), last_beaten, best), best_loss, beaten
