"""Is there a gradient to go by, does it predict what moving does, and does it hold a little further on?"""

from __future__ import annotations

from typing import ClassVar

import torch

from buttress.audits.masking.checks.check import Check, Kind, Result, Trial
from buttress.audits.masking.checks.paired_attacks import at_least
from buttress.audits.masking.checks.proposal import black_box
from buttress.audits.masking.checks.raw_gradients import cosines, neighbours, span
from buttress.losses import margin

_FAINT = 0.01  # what a gradient says moving every value across its whole range does to the margin, as a share of it
_DIRECTIONS = 24
_AGREE = 0.3  # cosine between what the gradient promises along the directions and what the network does
_NEIGHBOURS = 4
_ALIKE = 0.1  # cosine below which a neighbour's gradient points elsewhere


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
