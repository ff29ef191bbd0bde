"""Free adversarial training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.fgsm import FGSM
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, Step, StepContext
from buttress.errors import UserError
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat, check_threat
from buttress.validation import positive, whole


@defence("free")
class Free(Defence):
    """Each batch several times over, one backward pass giving the gradients of the weights and of the perturbation.

    Shafahi et al., NeurIPS 2019, algorithm 1. In each replay the weights are updated at x + delta, put into the box,
    and delta moves by alpha eps along the sign of its gradient, clipped to eps; values that the box cuts off have no
    gradient and stay. Delta is never reset: the next batch starts from it, and a smaller one uses its first rows. Since
    every batch is replayed, train for the usual number of epochs divided by ``replays``. With several processes each
    has a delta of its own, and they start each epoch from that of the first.

    Cost: 1 gradient of the weights per replay and nothing for the perturbation.

    Args:
        threat: what the model is trained against; linf only.
        replays: updates per batch, m in the paper, which uses 8 on CIFAR-10.
        alpha: length of delta's step, as a multiple of eps.
    """

    needs_classes = False
    paper = "Shafahi et al., NeurIPS 2019"

    delta: Tensor

    def __init__(self, threat: Threat = NOT_GIVEN, replays: int = 8, alpha: float = 1.0) -> None:
        super().__init__()
        self.threat, self.replays, self.alpha = threat, replays, alpha
        check_threat("free", threat, "linf")
        whole("replays", replays)
        positive("alpha", alpha)
        if not math.isfinite(self.threat.eps):
            raise UserError(f"free needs a finite eps; got {self.threat.eps}")
        self.register_buffer("delta", torch.zeros(0))  # as large as the largest batch so far
        self._leaf: Tensor | None = None

    @property
    def attack(self) -> Perturbation:
        """FGSM: one of its steps per replay."""
        return FGSM(threat=self.threat)

    @property
    def cost(self) -> Cost:
        """A pass of each kind per replay."""
        return Cost(crafting=0, training=2 * self.replays, objectives=self.replays)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy at x + delta; its backward pass leaves delta's gradient as well."""
        x = context.batch.x
        limit = self._limit(x, context.scale)
        self._leaf = self._rows(x).clamp(-limit, limit).requires_grad_()
        return Loss(context.task.objective(context.adversarial(self.threat.clip(x + self._leaf, x)), batch.y))

    def step(self, step: Step) -> None:
        """All replays of one batch."""
        self._grow(step.batch.x)
        for _ in range(self.replays):
            step.update(step.loss())
            leaf, self._leaf = self._leaf, None
            if leaf is None or leaf.grad is None:
                raise UserError("free needs the gradient of its perturbation, which this model's output does not give")
            limit = self._limit(leaf, step.context.scale)
            delta = leaf.detach() + self.alpha * limit * leaf.grad.sign()
            self.delta[: len(leaf)] = delta.clamp(-limit, limit)

    def _limit(self, x: Tensor, scale: float) -> Tensor:
        """(N, ...) how far each value may be moved."""
        return scale * self.threat.eps * self.threat.shared(torch.ones_like(x))

    def _rows(self, x: Tensor) -> Tensor:
        """A copy of delta's rows for this batch, zeros where there are none yet."""
        rows = torch.zeros_like(x)
        if self.delta.shape[1:] == x.shape[1:]:
            delta = self.delta[: len(x)]
            rows[: len(delta)] = delta
        return rows

    def _grow(self, x: Tensor) -> None:
        if self.delta.shape[1:] == x.shape[1:] and len(self.delta) >= len(x):
            return
        count = torch.tensor(len(x), device=x.device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX)  # shares of a batch differ by one
        rows = x.new_zeros(int(count), *x.shape[1:])
        rows[: len(x)] = self._rows(x)
        self.delta = rows

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        saved = state.get(f"{prefix}delta")
        if isinstance(saved, Tensor):  # of whatever size the batches had
            self.delta = torch.zeros_like(saved, device=self.delta.device)
        super()._load_from_state_dict(state, prefix, *rest)
