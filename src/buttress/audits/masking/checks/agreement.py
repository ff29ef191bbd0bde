"""Does the gradient tell the truth?"""

from __future__ import annotations

from typing import ClassVar

import torch

from buttress.audits.masking.checks.check import Check, Kind, Result, Trial
from buttress.audits.masking.checks.paired_attacks import at_least
from buttress.audits.masking.checks.proposal import black_box
from buttress.audits.masking.checks.raw_gradients import cosines, neighbours
from buttress.losses import margin

_DIRECTIONS = 24
_AGREE = 0.3  # cosine between what the gradient promises along the directions and what the network does


class Agreement(Check):
    """What the gradient promises along random directions, against what moving there does to the margin.

    For each input the changes of the margin between both sides of it, a quarter of the budget away, over 24 random
    directions; their cosine with the changes that the gradient promises. For inputs of most networks it is close to 1;
    where a part of the network is detached or gives a gradient of its own making, it scatters around 0.
    """

    name = "agreement"
    question = "Does the gradient tell what moving does?"
    kind: ClassVar[Kind] = "gradient health"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 1

    def ask(self, trial: Trial) -> Result:
        """Warn where the gradient is shown to say nothing on most inputs."""
        near = neighbours(trial.subject, trial.attack.threat, _DIRECTIONS)
        here = trial.slopes_at(near.centre)
        assert here is not None
        grad = torch.nan_to_num(here.grad).flatten(1).double()
        done, promised = [], []
        for step in near.steps:
            ahead, back = (trial.subject.output(near.centre + sign * step).double() for sign in (1, -1))
            done.append(margin(ahead, trial.subject.y) - margin(back, trial.subject.y))
            promised.append(2 * (grad * step.flatten(1).double()).sum(1))
        angle = cosines(torch.stack(done, 1), torch.stack(promised, 1))
        apart = int((angle < _AGREE).sum())
        figures = {"median_cosine": float(angle.median()), "share_below": apart / trial.count}
        if at_least(apart, trial.count, 0.5) > trial.level:
            return Result("pass", f"Promise and outcome agree (median cosine {figures['median_cosine']:.2f}).", figures)
        told = (
            f"On {figures['share_below']:.0%} of the inputs the gradient says little of what moving does "
            f"(median cosine {figures['median_cosine']:.2f})."
        )
        return Result("warn", told, figures, next=black_box(trial))
