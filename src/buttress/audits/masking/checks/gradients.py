"""Is there a gradient to go by at all?"""

from __future__ import annotations

from typing import ClassVar

import torch

from buttress.audits.masking.checks.check import Check, Kind, Result, Trial
from buttress.audits.masking.checks.paired_attacks import at_least
from buttress.audits.masking.checks.proposal import black_box
from buttress.audits.masking.checks.raw_gradients import span

_FAINT = 0.01  # what a gradient says moving every value across its whole range does to the margin, as a share of it


class Gradients(Check):
    """The share of inputs where the margin's gradient is missing, zero, not finite, or next to nothing.

    Next to nothing: to first order, even moving every value of the input across its whole range would change the
    margin by less than a hundredth of itself. Of real networks the gradient says many times the margin.
    """

    name = "gradients"
    question = "Is there a gradient to go by?"
    kind: ClassVar[Kind] = "gradient health"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 2
    needs_gradient = False

    def ask(self, trial: Trial) -> Result:
        """Fail where more than the floor's share of gradients is shown to be missing, or next to nothing."""
        if trial.blind:
            return Result("pass", "The attack asks for none.", {})
        if trial.slopes is None:
            told = "The output does not depend on the input through differentiable operations."
            return Result("fail", told, {"zero": 1.0, "faint": 0.0}, next=black_box(trial))
        value, grad = trial.slopes.value, trial.slopes.grad.flatten(1).double()
        dead = ~torch.isfinite(grad).all(1) | (grad == 0).all(1)
        reach = span(trial.subject, trial.attack.threat) * torch.nan_to_num(grad).abs().sum(1)
        faint = ~dead & (reach < _FAINT * value.abs())
        shares = [int(rows.sum()) / trial.count for rows in (dead, faint)]
        figures = {"zero": shares[0], "faint": shares[1]}
        for rows, share, what in ((dead, shares[0], "zero or not finite"), (faint, shares[1], "next to nothing")):
            if at_least(int(rows.sum()), trial.count, trial.floor) <= trial.level:
                told = f"The gradient is {what} on {share:.0%} of the inputs."
                return Result("fail", told, figures, next=black_box(trial))
        return Result("pass", f"{1 - sum(shares):.1%} of the inputs have a usable gradient.", figures)
