"""The outcome of a perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from buttress.engine.oracle import Stage
from buttress.engine.runner import Precision


@dataclass(frozen=True)
class AttackResult:
    """The outcome of a perturbation, one entry per input.

    Attributes:
        x_adv: (N, ...) the perturbed inputs.
        success: (N,) bool, whether they fool the model; a float32 verdict on ``x_adv`` itself.
        loss: (N,) the task's loss at ``x_adv`` against the truth.
        distance: (N,) float64, the perturbation's size in the threat's norm, or in L2 where there is no threat.
        forwards: (N,) int64, forward passes spent, the verdict's included; ``backwards`` likewise.
        precision: what the search ran in; "auto" is replaced by its choice.
        stages: what each part of a composed attack did, in order; empty for the others.
    """

    x_adv: Tensor
    success: Tensor
    loss: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    precision: Precision = "fp32"
    stages: tuple[Stage, ...] = ()

    @property
    def beaten(self) -> Tensor:
        """The earlier name of ``success``."""
        return self.success


def concatenated(parts: Sequence[AttackResult]) -> AttackResult:
    """The outcomes of consecutive batches as one; stages of one name are added up."""
    tensors = [f.name for f in fields(AttackResult) if f.name not in ("precision", "stages")]
    whole: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
    stages: dict[str, Stage] = {}
    for stage in (stage for part in parts for stage in part.stages):
        stages[stage.name] = stages[stage.name] + stage if stage.name in stages else stage
    return AttackResult(**whole, precision=parts[0].precision, stages=tuple(stages.values()))
