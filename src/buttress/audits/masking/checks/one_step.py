"""Is one large step worth as much as many small ones?"""

from __future__ import annotations

import math
from typing import ClassVar

from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import Check, Result, Trial
from buttress.audits.robustness import at_budget


class OneStep(Check):
    """FGSM against the attack, and against itself with half the budget.

    One step must not beat more than many. And where half the step beats more than the whole one, the network has
    learnt to send the whole step astray: catastrophic overfitting to one-step training (Wong et al., ICLR 2020).
    """

    name = "one step"
    question = "Is one step no better than many, and a whole one no worse than half?"
    tests: ClassVar[int] = 4

    def ask(self, trial: Trial) -> Result:
        """Fail where one step beats more than the attack, warn where half a step beats more than a whole one."""
        whole = trial.through(FGSM(threat=trial.attack.threat))
        found = trial.compare(whole)
        if found.stronger:
            longer = PGD(threat=whole.threat, steps=100, restarts=5)
            told = f"One step beats {found.surplus:.1%} more of the inputs than {found.reference}."
            return Result("fail", told, {}, (found,), trial.through(longer))
        if math.isinf(whole.threat.eps):
            return Result("pass", "One step is no better than the attack.", {}, (found,))
        half = trial.judge(
            ("FGSM at half the budget", trial.under(at_budget(whole, whole.threat.eps / 2))),
            ("FGSM", trial.under(whole)),
            floor=trial.tolerated,
        )
        if half.stronger:
            longer = PGD(threat=whole.threat, steps=5 * trial.steps)
            told = (
                f"Half a step beats {half.surplus:.1%} more of the inputs than a whole one: one-step figures mean "
                "nothing here, as after catastrophic overfitting."
            )
            return Result("warn", told, {}, (found, half), trial.through(longer))
        return Result("pass", "One step is no better than many, and half a step no better than one.", {}, (found, half))
