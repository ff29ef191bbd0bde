"""Does the size of the logits matter? It must not: the verdict does not depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from buttress.attacks import Attack
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import Check, CheckContext, Result


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
    rounds to zero, and the common attack stays where it is (Carlini and Wagner, 2016). Attacks here compute losses in
    float64 and avoid that, so a difference means that figures from elsewhere cannot be trusted, not this attack's.
    """

    name = "scale"
    question = "Does rescaling the logits change the result?"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 1

    def attacks(self, context: CheckContext) -> list[Attack]:
        """PGD on the logits as they are and on rescaled ones; none where their scale is 0."""
        size, threat, steps = _size(context), context.attack.threat, context.steps
        return [
            context.with_replaced_gradients(PGD(threat=threat, steps=steps, loss=Scaled(factor)))
            for factor in ((1.0, 1 / size) if size else ())
        ]

    def ask(self, context: CheckContext) -> Result:
        """Warn where the rescaled network is shown to be weaker."""
        size = _size(context)
        figures = {"median_margin": size}
        if size == 0:
            return Result("pass", "The median margin is 0.", figures)
        raw, rescaled = self.attacks(context)
        pair = context.compare_robust(
            ("PGD on rescaled logits", context.robust_under(rescaled)),
            ("PGD on logits as they are", context.robust_under(raw)),
            effort=True,
        )
        if not pair.stronger:
            return Result("pass", "The common attack is as successful with rescaled logits.", figures, (pair,))
        reason = (
            f"The scale of the logits (median margin {size:.3g}) misleads the common float32 cross-entropy: "
            f"with rescaled logits it succeeds on {pair.surplus:.1%} more of the inputs."
        )
        on_margin = PGD(threat=context.attack.threat, steps=context.steps, loss="margin")
        return Result("warn", reason, figures, (pair,), context.with_replaced_gradients(on_margin))


def _size(context: CheckContext) -> float:
    """The median size of the margin."""
    assert context.margin_gradients is not None
    return float(context.margin_gradients.value.abs().median())
