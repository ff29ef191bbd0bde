"""Is there a gradient to go by, does it predict what moving does, and does it hold a little further on?"""

from __future__ import annotations

from typing import ClassVar

import torch

from buttress.audits.masking.checks.check import Check, CheckContext, Kind, Result
from buttress.audits.masking.checks.paired_attacks import at_least
from buttress.audits.masking.checks.proposal import black_box
from buttress.audits.masking.checks.raw_gradients import Neighbours, cosines, span
from buttress.engine.pass_count import PassCount
from buttress.losses import margin

_FAINT = 0.01  # predicted change of the margin, as a share of it, when every value moves across its whole range
_DIRECTIONS = 24
_AGREE = 0.3  # cosine between the changes that the gradient predicts along the directions and the actual ones
_NEIGHBOURS = 4
_ALIKE = 0.1  # cosine below which a neighbour's gradient points elsewhere


class Gradients(Check):
    """The share of inputs where the margin's gradient is missing, zero, not finite, or next to nothing.

    Next to nothing: to first order, even moving every value of the input across its whole range would change the
    margin by less than a hundredth of itself. Gradients of real networks predict many times the margin.
    """

    name = "gradients"
    question = "Is there a gradient to go by?"
    kind: ClassVar[Kind] = "gradient health"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 2
    needs_gradient = False

    def passes(self, context: CheckContext) -> PassCount:
        """The gradient."""
        return PassCount(1, 1)

    def ask(self, context: CheckContext) -> Result:
        """Fail where more than the floor's share of gradients is shown to be missing, or next to nothing."""
        if context.gradient_free:
            return Result("pass", "The attack uses none.", {})
        if context.margin_gradients is None:
            reason = "The output does not depend on the input through differentiable operations."
            return Result("fail", reason, {"zero": 1.0, "faint": 0.0}, next=black_box(context))
        value, grad = context.margin_gradients.value, context.margin_gradients.grad.flatten(1).double()
        missing = ~torch.isfinite(grad).all(1) | (grad == 0).all(1)
        reach = span(context.subject, context.attack.threat) * torch.nan_to_num(grad).abs().sum(1)
        faint = ~missing & (reach < _FAINT * value.abs())
        shares = [int(rows.sum()) / context.count for rows in (missing, faint)]
        figures = {"zero": shares[0], "faint": shares[1]}
        for rows, share, what in ((missing, shares[0], "zero or not finite"), (faint, shares[1], "next to nothing")):
            if at_least(int(rows.sum()), context.count, context.floor) <= context.level:
                reason = f"The gradient is {what} on {share:.0%} of the inputs."
                return Result("fail", reason, figures, next=black_box(context))
        return Result("pass", f"{1 - sum(shares):.1%} of the inputs have a usable gradient.", figures)


class Agreement(Check):
    """What the gradient predicts along random directions, against what moving there does to the margin.

    For each input the changes of the margin between both sides of it, a quarter of the budget away, over 24 random
    directions; their cosine with the changes that the gradient predicts. For inputs of most networks it is close to 1;
    where a part of the network is detached or gives a gradient of its own making, it scatters around 0.
    """

    name = "agreement"
    question = "Does the gradient predict what a step does?"
    kind: ClassVar[Kind] = "gradient health"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 1

    def passes(self, context: CheckContext) -> PassCount:
        """The gradient, and a point on both sides in each direction."""
        return PassCount(1 + 2 * _DIRECTIONS, 1)

    def ask(self, context: CheckContext) -> Result:
        """Warn where the gradient is shown to predict nothing on most inputs."""
        near = Neighbours(context.subject, context.attack.threat, _DIRECTIONS)
        local = context.gradients_at(near.centre)
        assert local is not None
        grad = torch.nan_to_num(local.grad).flatten(1).double()
        actual, predicted = [], []
        for step in near.steps():
            ahead, back = (context.subject.output(near.centre + sign * step).double() for sign in (1, -1))
            actual.append(margin(ahead, context.subject.y) - margin(back, context.subject.y))
            predicted.append(2 * (grad * step.flatten(1).double()).sum(1))
        cosine = cosines(torch.stack(actual, 1), torch.stack(predicted, 1))
        below = int((cosine < _AGREE).sum())
        figures = {"median_cosine": float(cosine.median()), "share_below": below / context.count}
        if at_least(below, context.count, 0.5) > context.level:
            return Result(
                "pass", f"Predicted and actual changes agree (median cosine {figures['median_cosine']:.2f}).", figures
            )
        reason = (
            f"On {figures['share_below']:.0%} of the inputs the gradient predicts little of what a step does "
            f"(median cosine {figures['median_cosine']:.2f})."
        )
        return Result("warn", reason, figures, next=black_box(context))


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

    def passes(self, context: CheckContext) -> PassCount:
        """The gradient here and at each neighbour."""
        return PassCount(1 + _NEIGHBOURS, 1 + _NEIGHBOURS)

    def ask(self, context: CheckContext) -> Result:
        """Warn where neighbours' gradients are shown to have nothing in common on most inputs."""
        near = Neighbours(context.subject, context.attack.threat, _NEIGHBOURS)
        local = context.gradients_at(near.centre)
        assert local is not None
        cosines_by_step = []
        for step in near.steps():
            neighbour = context.gradients_at(near.centre + step)
            cosines_by_step.append(
                torch.zeros_like(local.value) if neighbour is None else cosines(local.grad, neighbour.grad)
            )
        cosine = torch.stack(cosines_by_step).mean(0)
        below = int((cosine < _ALIKE).sum())
        figures = {"median_cosine": float(cosine.median()), "share_below": below / context.count}
        if at_least(below, context.count, 0.5) > context.level:
            return Result("pass", f"Neighbours' gradients are alike (median cosine {cosine.median():.2f}).", figures)
        reason = f"Gradients of neighbours have nothing in common (median cosine {cosine.median():.2f})."
        return Result("warn", reason, figures, next=black_box(context))
