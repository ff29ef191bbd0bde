"""Is one large step worth as much as many small ones?"""

from __future__ import annotations

import math
from typing import ClassVar

from buttress.attacks import Attack
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import Check, CheckContext, Result
from buttress.audits.robustness import at_budget


class OneStep(Check):
    """FGSM against the attack, and against itself with half the budget.

    One step must not succeed more often than many. And where half the step succeeds more often than the whole one, the
    network has learnt to send the whole step astray: catastrophic overfitting to one-step training (Wong et al., ICLR
    2020).
    """

    name = "one step"
    question = "Is one step no better than many, and a whole one no worse than half?"
    tests: ClassVar[int] = 4

    def attacks(self, context: CheckContext) -> list[Attack]:
        """The whole step, and half of it where there is a half."""
        whole = context.with_replaced_gradients(FGSM(threat=context.attack.threat))
        eps = whole.threat.eps
        return [whole] if math.isinf(eps) else [whole, at_budget(whole, eps / 2)]

    def ask(self, context: CheckContext) -> Result:
        """Fail where one step is more successful than the attack, warn where half a step is than a whole one."""
        whole, *halves = self.attacks(context)
        whole_step = context.compare(whole)
        if whole_step.stronger:
            longer = PGD(threat=whole.threat, steps=100, restarts=5)
            reason = f"One step succeeds on {whole_step.surplus:.1%} more of the inputs than {whole_step.reference}."
            return Result("fail", reason, {}, (whole_step,), context.with_replaced_gradients(longer))
        if not halves:
            return Result("pass", "One step is no better than the attack.", {}, (whole_step,))
        half = context.compare_robust(
            ("FGSM at half the budget", context.robust_under(halves[0])),
            ("FGSM", context.robust_under(whole)),
            floor=context.tolerated,
        )
        if half.stronger:
            longer = PGD(threat=whole.threat, steps=5 * context.steps)
            reason = (
                f"Half a step succeeds on {half.surplus:.1%} more of the inputs than a whole one: one-step figures "
                "mean nothing here, as after catastrophic overfitting."
            )
            return Result("warn", reason, {}, (whole_step, half), context.with_replaced_gradients(longer))
        return Result(
            "pass", "One step is no better than many, and half a step no better than one.", {}, (whole_step, half)
        )
