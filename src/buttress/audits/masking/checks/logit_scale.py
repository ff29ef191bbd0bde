"""Does the size of the logits matter? It must not: the verdict does not depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import Check, Result, Trial


@dataclass(frozen=True)
class Scaled:
    """Cross-entropy in float32, as it is commonly computed, of logits times a factor."""

    factor: float = 1.0

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """(N,) the loss."""
        return F.cross_entropy((logits * self.factor).float(), y, reduction="none")


class Scale(Check):
    """PGD on the cross-entropy in float32, with the logits as they are and brought to a median margin of 1.

    Large logits (a factor in front of them, distillation at a high temperature) saturate the softmax: its gradient
    rounds to zero, and the common attack stands still (Carlini and Wagner, 2016). Attacks here compute losses in
    float64 and mend that, so a difference says that figures from elsewhere cannot be trusted, not this attack's.
    """

    name = "scale"
    question = "Does rescaling the logits change the result?"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 1

    def ask(self, trial: Trial) -> Result:
        """Warn where the rescaled network is shown to be weaker."""
        assert trial.slopes is not None
        size = float(trial.slopes.value.abs().median())
        figures = {"median_margin": size}
        if size == 0:
            return Result("pass", "The median margin is 0.", figures)
        threat, steps = trial.attack.threat, trial.steps
        raw, rescaled = (
            trial.through(PGD(threat=threat, steps=steps, loss=Scaled(factor))) for factor in (1.0, 1 / size)
        )
        found = trial.judge(
            ("PGD on rescaled logits", trial.under(rescaled)),
            ("PGD on logits as they are", trial.under(raw)),
            effort=True,
        )
        if not found.stronger:
            return Result("pass", "The common attack finds the same with rescaled logits.", figures, (found,))
        told = (
            f"The scale of the logits (median margin {size:.3g}) misleads the common float32 cross-entropy: "
            f"rescaling them lets it beat {found.surplus:.1%} more of the inputs."
        )
        attack = trial.through(PGD(threat=threat, steps=steps, loss="margin"))
        return Result("warn", told, figures, (found,), attack)
