"""One training step: the model and its defence as one module, and what a defence may do with a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from buttress.defences.base.defence import Batch, Defence, Loss, StepContext
from buttress.errors import UserError
from buttress.registry import defence as registered_defences
from buttress.training.config import TrainingConfig
from buttress.training.divergence import overflows, remedy

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class StepLoss(nn.Module):
    """The model and its defence as one module whose forward is the loss; attacks see the plain model inside."""

    def __init__(self, model: nn.Module, defence: Defence) -> None:
        super().__init__()
        self.model, self.defence = model, defence
        self.context: StepContext | None = None
        self.logs: Mapping[str, Tensor] = {}

    def forward(self, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        """The step's objective, auxiliary terms of the model included.

        The batch is that of ``context``, not the arguments: mixed precision rounds those, and clean inputs are no more
        to be rounded than perturbed ones.
        """
        assert self.context is not None
        loss = _checked(self.defence, self.defence.loss(self.model, self.context.batch, self.context))
        self.logs = loss.logs
        return loss.value + sum(self.context.auxiliary) if self.context.auxiliary else loss.value


def _checked(defence: Defence, loss: object) -> Loss:
    """What a defence returned, when it is an objective that can be made smaller.

    Raises:
        UserError: naming the defence, for anything else.
    """
    name = registered_defences.name_of(defence)
    if not isinstance(loss, Loss):
        raise UserError(f"{name} returned a {type(loss).__name__} from loss: return defences.Loss(value, logs)")
    value = loss.value
    if not isinstance(value, Tensor) or value.dim():
        came = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(f"{name} returned {came} as its loss: a tensor of one number is needed, as of .mean()")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise UserError(f"{name} returned a loss that does not depend on the weights: leave detach() and item() out")
    for figure, number in loss.logs.items():
        if (shape := torch.as_tensor(number).shape).numel() != 1:
            raise UserError(f"{name} returned {figure!r} among its figures, of shape {tuple(shape)}: give one number")
    return loss


@dataclass
class BatchStep:
    """What a `Defence.step` may do with one batch; see `buttress.defences.base.defence.Step`.

    Args:
        batch: the batch.
        model: the model alone.
        optimizer: of the model's and the defence's weights.
        context: where in training this is, and the passes of the step.
        step_loss: model and defence as one module.
        module: ``step_loss`` as Fabric runs it.
        fabric: runs the backward passes.
        config: how is trained.
        sums: of each of the epoch's figures so far the sum and the number; added to.
        after_update: called after each update of the weights.
        where: this step in words, for the error line.
        updated: whether any weight has been changed, by this step or before.
    """

    batch: Batch
    model: nn.Module
    optimizer: torch.optim.Optimizer
    context: StepContext
    step_loss: StepLoss
    module: Any
    fabric: Fabric
    config: TrainingConfig
    sums: dict[str, tuple[float, int]]
    after_update: Callable[[], None]
    where: str
    updated: bool

    def loss(self) -> Loss:
        """The defence's objective for this batch."""
        self.context.passes.clear()
        self.context.auxiliary.clear()
        self.context.batch = self.batch = self.batch.embedded(self.model)
        return Loss(self.module(self.batch.x, self.batch.y, self.batch.ids), self.step_loss.logs)

    def backward(self, loss: Loss) -> None:
        """Add the gradients of a loss to those of this update, and its figures to the epoch's.

        Raises:
            UserError: for a loss that is not finite, and for a gradient whose square is not.
        """
        value = float(loss.value.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        self.fabric.backward(loss.value)
        if overflows(value, (p.grad for p in self.step_loss.parameters() if p.grad is not None)):
            raise self._diverged(f"the loss is {value:.3g} and its gradient too large")
        logs = {name: float(torch.as_tensor(figure).detach()) for name, figure in loss.logs.items()}
        for name, figure in {"loss": value, **logs}.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + figure, count + 1

    def _diverged(self, what: str) -> UserError:
        cure = remedy(self.step_loss.defence, self.config, self.batch.x, updated=self.updated)
        return UserError(f"{what} at {self.where}: training diverged; {cure}. The last checkpoint is intact")

    def gradients(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """The gradients of a loss for these parameters, with no part in this update; None where it has none."""
        own = list(self.step_loss.parameters())
        before = [parameter.grad for parameter in own]
        self.optimizer.zero_grad()
        self.fabric.backward(loss.value)
        gradients = [parameter.grad for parameter in parameters]
        for parameter, grad in zip(own, before, strict=True):
            parameter.grad = grad
        return gradients

    def apply(self) -> None:
        """One step of the optimiser along the gradients so far, which are then dropped."""
        if self.config.clip is not None:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.config.clip)
        self.optimizer.step()
        self.updated = True
        self.optimizer.zero_grad()
        self.after_update()

    def update(self, loss: Loss) -> None:
        """`backward` and `apply`."""
        self.backward(loss)
        self.apply()
