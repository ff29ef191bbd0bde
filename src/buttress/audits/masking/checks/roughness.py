"""Is the loss surface smooth enough for a gradient to mean anything a little further on?"""

from __future__ import annotations

from typing import ClassVar

import torch

from buttress.audits.masking.checks.check import Check, Kind, Result, Trial
from buttress.audits.masking.checks.paired_attacks import at_least
from buttress.audits.masking.checks.proposal import black_box
from buttress.audits.masking.checks.raw_gradients import cosines, neighbours

_NEIGHBOURS = 4
_ALIKE = 0.1  # cosine below which a neighbour's gradient points elsewhere


class Roughness(Check):
    """Cosine between the margin's gradient at an input and at random neighbours a quarter of the budget away.

    Shattered gradients (Athalye et al., ICML 2018): of a staircase or of units that compete for being heard, the
    gradient is another one at every point.
    """

    name = "roughness"
    question = "Do neighbours share a gradient?"
    kind: ClassVar[Kind] = "gradient health"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 1

    def ask(self, trial: Trial) -> Result:
        """Warn where neighbours' gradients are shown to have nothing in common on most inputs."""
        near = neighbours(trial.subject, trial.attack.threat, _NEIGHBOURS)
        here = trial.slopes_at(near.centre)
        assert here is not None
        found = []
        for step in near.steps:
            there = trial.slopes_at(near.centre + step)
            found.append(torch.zeros_like(here.value) if there is None else cosines(here.grad, there.grad))
        angle = torch.stack(found).mean(0)
        apart = int((angle < _ALIKE).sum())
        figures = {"median_cosine": float(angle.median()), "share_below": apart / trial.count}
        if at_least(apart, trial.count, 0.5) > trial.level:
            return Result("pass", f"Neighbours' gradients are alike (median cosine {angle.median():.2f}).", figures)
        told = f"Gradients of neighbours have nothing in common (median cosine {angle.median():.2f})."
        return Result("warn", told, figures, next=black_box(trial))
