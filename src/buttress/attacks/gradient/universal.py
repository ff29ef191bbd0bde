"""One perturbation for all inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress import losses, tasks
from buttress.attacks.gradient.steepest_ascent import reach, step_length
from buttress.data.batches import read_batches
from buttress.engine.attack import Attack
from buttress.engine.call_checks import check_call, check_inputs
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import Model, preserved
from buttress.engine.runner import Precision, Runner
from buttress.errors import UserError
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.tasks import Task
from buttress.threat import NOT_GIVEN, Threat, per_row
from buttress.validation import number, positive, whole


@attack("universal")
@dataclass(frozen=True, kw_only=True)
class Universal(Attack):
    """The same perturbation added to every input (Moosavi-Dezfooli et al., CVPR 2017).

    It is found by stochastic ascent on the mean loss over inputs (Shafahi et al., AAAI 2020, algorithm 2): each step
    moves it in the steepest direction of the mean gradient and puts it back into the ball. `fit` learns it from data.
    An attack without a ``delta`` learns one from the very inputs it is called on, so that what becomes of an input
    depends on the others of the call; it suits whole test sets, and says less than a ``delta`` from other data.

    Cost per input: with a ``delta`` none but the verdict's; without one ``steps`` + 1 forwards and ``steps``
    backwards.

    Args:
        threat: what is allowed; the box is met for each input by clipping.
        steps: gradient steps, where there is no ``delta``.
        step_size: length of a step in input units; 2.5 eps / steps unless given.
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
        ceiling: inputs whose loss is above it add nothing to the mean gradient, so that no few of them lead it.
        delta: the perturbation, of one input's shape.
    """

    by_input = False  # without a delta, the inputs of one call share the result

    threat: Threat = NOT_GIVEN
    steps: int = 10
    step_size: float | None = None
    loss: LossLike | None = None
    ceiling: float = math.inf
    delta: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        number("ceiling", self.ceiling, "(-inf, inf]")
        if self.loss is not None:
            resolve(self.loss)
        if self.delta is not None and not (isinstance(self.delta, Tensor) and bool(self.delta.isfinite().all())):
            raise UserError("delta must be a tensor of finite numbers, of one input's shape; see Universal.fit")

    @classmethod
    def fit(
        cls,
        model: Model,
        data: Iterable[Any],
        threat: Threat = Threat(),
        *,
        epochs: int = 5,
        step_size: float | None = None,
        loss: LossLike | None = None,
        ceiling: float = math.inf,
        target: int | None = None,
        task: Task = tasks.classification,
        precision: Precision = "fp32",
        seed: int = 0,
    ) -> Universal:
        """The attack with a ``delta`` learnt from data: one step for each batch.

        Args:
            model: comes back as it was.
            data: batches (x, y), see `read_batches`, the same again for every epoch: a list, a loader or a `Split`.
            threat: what is allowed.
            epochs: rounds through the data.
            step_size: length of a step in input units; eps / 10 unless given.
            loss: as for the attack.
            ceiling: as for the attack.
            target: the class that all inputs are led to; away from their own unless given.
            task: what the output is for.
            precision: of the passes.
            seed: of what the model draws, if it draws.

        Raises:
            UserError: for data without batches, and what an attack refuses.
        """
        whole("epochs", epochs)
        if target is not None:
            whole("target", target, 0)
        check_call("full", "eval", precision, None)
        size = reach(threat) / 10 if step_size is None else step_size
        fitted = cls(threat=threat, step_size=size, loss=loss, ceiling=ceiling)
        for _ in range(epochs):
            seen = 0
            for x, y in read_batches(data):
                check_inputs(model, x, y, threat.box)
                threat.check(x)
                fitted._check_shape(x)
                targets = None if target is None else torch.full_like(y, target)
                with preserved(model, "eval", seed, x.device):
                    oracle = Oracle(Runner(model, task, precision, len(x)), x.detach().clone(), y.clone(), targets)
                    start = torch.zeros_like(x[:1]) if fitted.delta is None else fitted.delta[None].to(x)
                    fitted = replace(fitted, delta=fitted._stepped(oracle, start, size)[0])
                seen += len(x)
            if not seen:
                raise UserError("data must give batches (x, y) in every epoch; it gave none: pass a list or a loader")
        return fitted

    def search_passes(self, classes: int) -> PassCount:
        """A forward and a backward each step; none where the perturbation is given."""
        return PassCount() if self.delta is not None else PassCount(self.steps, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """Every input plus the perturbation."""
        if self.delta is not None:
            self._check_shape(x)
            return x + self.delta.to(x)
        step_size, rows = step_length(self.threat, self.step_size, self.steps), oracle.alive.nonzero().squeeze(1)
        part = oracle.only(rows, search="full")  # adversarial examples still count in the mean
        delta = torch.zeros_like(x[:1])
        for _ in range(self.steps):
            delta = self._stepped(part, delta, step_size)
        oracle.ledger.add(part.ledger, rows)
        return x + delta

    def _stepped(self, oracle: Oracle, delta: Tensor, step_size: float) -> Tensor:
        """(1, ...) the perturbation after one step."""
        x = oracle.x
        moved = x + delta
        grad = self._weighted_grad(oracle, self.threat.clip(moved, x))
        low, high = self.threat.limits(x)  # where the box cuts it off, moving it changes nothing
        grad = torch.where((moved >= low) & (moved <= high), grad, 0)
        ball = replace(self.threat, box=None)
        return ball.project(ball.ascend(delta, grad.mean(0, keepdim=True), step_size), torch.zeros_like(delta))

    def _weighted_grad(self, oracle: Oracle, x: Tensor) -> Tensor:
        """(N, ...) gradients whose mean has the direction of the mean loss's; 0 for inputs above the ceiling.

        The oracle scales faint gradients up, which a mean must not. Those of cross-entropy are therefore put together
        from those of the log-odds m, which never are faint: sigmoid(m) times them. Only the ratios of these weights
        are used, or a network that is sure of all inputs would leave nothing to follow.
        """
        if oracle.task.resolve(self.loss or oracle.task.loss).function is not losses.cross_entropy:
            loss, grad = oracle.loss_and_grad(x, self.loss)
            return torch.where(per_row(loss <= self.ceiling, x), grad, 0)
        odds, grad = oracle.loss_and_grad(x, losses.log_odds_against)
        sign = 1 if oracle.target is None else -1  # under a target, the loss is minus that of the target
        weight = F.logsigmoid(sign * odds).masked_fill(sign * F.softplus(sign * odds) > self.ceiling, -math.inf)
        return grad * per_row(torch.exp(weight - weight.amax().clamp(min=torch.finfo(weight.dtype).min)), x)

    def _check_shape(self, x: Tensor) -> None:
        if self.delta is not None and self.delta.shape != x.shape[1:]:
            raise UserError(f"delta is for inputs of shape {tuple(self.delta.shape)}; got {tuple(x.shape[1:])}")
