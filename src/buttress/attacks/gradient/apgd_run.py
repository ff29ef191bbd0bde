"""One run of Auto-PGD from a given start: with momentum in linf and l2, with sparse steps in l1."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.attacks.gradient.l1_geometry import project_l1, sparse_step
from buttress.attacks.gradient.steepest_ascent import reach
from buttress.engine.oracle import Oracle
from buttress.losses import LossLike
from buttress.threat import Threat, per_row

_MOMENTUM = 0.75  # alpha in the paper: the share of the new step, the rest repeats the step before
_SPARSER = 1.5  # in l1: steps move the best point's coordinates over this; a step size is divided by it
_FIRST_PART = 5  # in l1: before the first checkpoint the steps move the coordinates over this
_SHORTEST = 10.0  # in l1: the shortest step is eps over this


class Best:
    """The best points of a run so far, row by row: the point of the highest loss, and the last that fooled the model.

    Attributes:
        point: (N, ...) of the highest loss, which is ``loss`` (N,), with its gradient ``grad`` (N, ...).
        success: (N,) bool, whether any iterate fooled the model; ``winner`` (N, ...) is the last that did.
    """

    def __init__(self, oracle: Oracle, start: Tensor, loss: Tensor, grad: Tensor) -> None:
        self.oracle = oracle
        self.point = self.winner = start
        self.loss, self.grad, self.success = loss, grad, oracle.success.clone()

    def see(self, x_adv: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Take note of an iterate, the last that the oracle was asked about."""
        won = self.oracle.success
        self.winner, self.success = torch.where(per_row(won, x_adv), x_adv, self.winner), self.success | won
        better = loss > self.loss
        self.point, self.loss = (
            torch.where(per_row(better, x_adv), x_adv, self.point),
            torch.where(better, loss, self.loss),
        )
        self.grad = torch.where(per_row(better, x_adv), grad, self.grad)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """The point to return, the highest loss met, and whether an iterate fooled the model."""
        return torch.where(per_row(self.success, self.point), self.winner, self.point), self.loss, self.success


def run_momentum(
    oracle: Oracle,
    threat: Threat,
    start: Tensor,
    steps: int,
    marks: list[int],
    rho: float,
    loss_name: LossLike | None,
    toward: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 1 of the paper, in linf or l2; see `Best.result`.

    Args:
        oracle: of the inputs.
        threat: what is allowed.
        start: (N, ...) inside it.
        steps: gradient steps.
        marks: the steps after which a row's step size may be halved.
        rho: the share of steps that must have raised the loss by then.
        loss_name: what is maximised.
        toward: (N,) classes to be led to, or None.
    """
    project = threat.projector(oracle.x)
    loss, grad = oracle.loss_and_grad(start, loss_name, toward)
    best, x_adv, previous, loss_at_check = Best(oracle, start, loss, grad), start, start, loss
    step_size = torch.full_like(loss, 2 * reach(threat))
    halved = torch.ones_like(best.success)  # so that a lack of progress counts from the second checkpoint on
    rises, last_check = torch.zeros_like(loss), 0
    for step in range(1, steps + 1):
        if oracle.done:
            break
        target = project(threat.ascend(x_adv, grad, step_size))
        share = _MOMENTUM if step > 1 else 1.0
        moved = x_adv + share * (target - x_adv) + (1 - share) * (x_adv - previous)
        previous, x_adv, before = x_adv, project(moved), loss
        if step < steps:
            loss, grad = oracle.loss_and_grad(x_adv, loss_name, toward)
        else:
            loss = oracle.loss(x_adv, loss_name, toward)
        rises += loss > before
        best.see(x_adv, loss, grad)
        if step in marks:
            halve = (rises <= rho * (step - last_check)) | (~halved & (best.loss <= loss_at_check))
            step_size = torch.where(halve, step_size / 2, step_size)
            x_adv = torch.where(per_row(halve, x_adv), best.point, x_adv)
            grad = torch.where(per_row(halve, x_adv), best.grad, grad)
            halved, loss_at_check, last_check = halve, best.loss, step
            rises = torch.zeros_like(rises)
    return best.result()


def run_l1(
    oracle: Oracle,
    threat: Threat,
    start: Tensor,
    steps: int,
    loss_name: LossLike | None,
    toward: Tensor | None,
    *,
    known: bool,
    best: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The l1 form of Croce and Hein (ICML 2021); see `Best.result`.

    Args:
        oracle: of the inputs.
        threat: an l1 ball.
        start: (N, ...) inside it.
        steps: gradient steps.
        loss_name: what is maximised.
        toward: (N,) classes to be led to, or None.
        known: whether the start is the end of a run, so that its sparsity says how sparse the first steps should be.
        best: return the point of the highest loss, whether it fooled the model or not.
    """
    x, size, every = oracle.x, oracle.x[0].numel(), max(int(0.04 * steps), 1)
    loss, grad = oracle.loss_and_grad(start, loss_name, toward)
    record, x_adv, longest = Best(oracle, start, loss, grad), start, reach(threat)
    step_size = torch.full_like(loss, longest)
    spread = _moved(start, x) if known else torch.full_like(loss, size)  # coordinates that the best point has moved
    count = spread / _SPARSER if known else torch.full_like(loss, size / _FIRST_PART)
    for step in range(1, steps + 1):
        if oracle.done:
            break
        x_adv = project_l1(x_adv + per_row(step_size, x) * sparse_step(threat.free(grad), count), x, threat)
        if step < steps:
            loss, grad = oracle.loss_and_grad(x_adv, loss_name, toward)
        else:
            loss = oracle.loss(x_adv, loss_name, toward)
        record.see(x_adv, loss, grad)
        if step % every == 0:
            now = _moved(record.point, x)
            sparser = now < 0.95 * spread
            step_size = torch.where(sparser, longest, (step_size / _SPARSER).clamp(min=longest / _SHORTEST))
            x_adv = torch.where(per_row(sparser, x), record.point, x_adv)
            grad = torch.where(per_row(sparser, x), record.grad, grad)
            spread, count = now, now / _SPARSER
    return (record.point, record.loss, record.success) if best else record.result()


def _moved(x_adv: Tensor, x: Tensor) -> Tensor:
    """(N,) how many coordinates differ."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)
