"""Is a larger budget more successful, and an unlimited one always?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from buttress.attacks import Attack
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import Check, CheckContext, Result
from buttress.audits.masking.checks.paired_attacks import at_least
from buttress.audits.masking.checks.proposal import black_box
from buttress.audits.robustness import at_budget
from buttress.threat import norms


class Budget(Check):
    """The attack at half the budget, at the budget and twice as much: each must be as successful as the last."""

    name = "budget"
    question = "Does a larger budget lower robust accuracy?"
    tests: ClassVar[int] = 4

    def attacks(self, context: CheckContext) -> list[Attack]:
        """The attack at half the budget and at twice as much, where there are such."""
        eps = context.attack.threat.eps
        return [] if math.isinf(eps) or eps == 0 else [at_budget(context.attack, share * eps) for share in (0.5, 2.0)]

    def ask(self, context: CheckContext) -> Result:
        """Fail where a smaller budget is shown to be more successful."""
        attacks = self.attacks(context)
        if not attacks:
            return Result("not run", f"eps {context.attack.threat.eps:g} has no half and no double.")
        half, double = map(context.robust_under, attacks)
        robust = {0.5: half, 1.0: context.robust, 2.0: double}
        figures = {f"robust_at_{share:g}_eps": float(rows.double().mean()) for share, rows in robust.items()}
        comparisons = tuple(
            context.compare_robust((f"{small:g} eps", robust[small]), (f"{large:g} eps", robust[large]))
            for small, large in ((0.5, 1.0), (1.0, 2.0))
        )
        for pair in comparisons:
            if pair.stronger:
                reason = f"{pair.challenger} succeeds on {pair.surplus:.1%} more of the inputs than {pair.reference}."
                return Result("fail", reason, figures, comparisons, black_box(context))
        return Result("pass", "Larger budgets lower robust accuracy.", figures, comparisons)


class Unbounded(Check):
    """PGD with 100 steps and no budget but the box; where there is no box, one that reaches from input to input.

    Then each input may become any other one, so an attack can succeed if the network predicts more than one class.
    """

    name = "unbounded"
    question = "Is robust accuracy 0 without a budget?"
    tests: ClassVar[int] = 1

    def attacks(self, context: CheckContext) -> list[Attack]:
        """PGD without a budget."""
        threat, x = context.attack.threat, context.subject.x
        across = float(norms((x.amax(0) - x.amin(0))[None], threat.norm))
        eps = math.inf if math.isfinite(threat.widest) else max(threat.eps, across)
        return [context.with_replaced_gradients(PGD(threat=replace(threat, eps=eps), steps=100))]

    def ask(self, context: CheckContext) -> Result:
        """Fail where robust accuracy is shown to be above the floor."""
        predictions = context.outputs[0].argmax(1)
        if bool((predictions == predictions[0]).all()):
            return Result("not run", "It predicts one class for all inputs.")
        (unbounded,) = self.attacks(context)
        robust = context.robust_under(unbounded)
        share = float(robust.double().mean())
        figures = {"standing": share}
        if at_least(int(robust.sum()), context.count, context.floor) <= context.level:
            reason = f"Robust accuracy is {share:.1%} even without a budget."
            return Result("fail", reason, figures, next=black_box(context))
        return Result("pass", f"Robust accuracy is {share:.1%} without a budget.", figures)
