"""Standard training: no perturbation at all."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from buttress.defences.base.defence import Batch, Cost, Defence, Loss, StepContext
from buttress.registry import defence
from buttress.validation import number


@defence("standard")
class Standard(Defence):
    """Cross-entropy on the clean batch. Cost: 1 gradient of the weights per step, the unit for all others.

    Args:
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
    """

    paper = "empirical risk minimisation"
    clean_pass = True
    perturbed_pass = False

    without_classes = "label_smoothing=0"

    @property
    def needs_classes(self) -> bool:
        """Smoothed labels are probabilities of classes."""
        return self.label_smoothing > 0

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = number("label_smoothing", label_smoothing, "[0, 1)")

    @property
    def cost(self) -> Cost:
        """One pass of each kind."""
        return Cost(crafting=0)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy."""
        output = context.clean(batch.x)
        if self.label_smoothing:
            return Loss(F.cross_entropy(output, batch.y, label_smoothing=self.label_smoothing))
        return Loss(context.task.objective(output, batch.y))
