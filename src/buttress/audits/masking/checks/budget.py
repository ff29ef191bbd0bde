"""Does a larger budget beat more, and a boundless one everything?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.checks.check import Check, Result, Trial
from buttress.audits.masking.checks.paired_attacks import at_least
from buttress.audits.masking.checks.proposal import black_box
from buttress.audits.robustness import at_budget
from buttress.threat import norms


class Budget(Check):
    """The attack at half the budget, at the budget and at twice as much: each must beat no fewer than the last."""

    name = "budget"
    question = "Does a larger budget beat more?"
    tests: ClassVar[int] = 4

    def ask(self, trial: Trial) -> Result:
        """Fail where a smaller budget is shown to beat more."""
        eps = trial.attack.threat.eps
        if math.isinf(eps) or eps == 0:
            return Result("not run", f"eps {eps:g} has no half and no double.")
        shares = {share: trial.under(at_budget(trial.attack, share * eps)) for share in (0.5, 2.0)}
        stands = {0.5: shares[0.5], 1.0: trial.stands, 2.0: shares[2.0]}
        figures = {f"robust_at_{share:g}_eps": float(found.double().mean()) for share, found in stands.items()}
        found = tuple(
            trial.judge((f"{small:g} eps", stands[small]), (f"{large:g} eps", stands[large]))
            for small, large in ((0.5, 1.0), (1.0, 2.0))
        )
        for pair in found:
            if pair.stronger:
                told = f"{pair.challenger} beats {pair.surplus:.1%} more of the inputs than {pair.reference}."
                return Result("fail", told, figures, found, black_box(trial))
        return Result("pass", "Larger budgets beat more.", figures, found)


class Unbounded(Check):
    """PGD with 100 steps and no budget but the box; where there is no box, one that reaches from input to input.

    Then each input may become any other one, and so be beaten wherever the network answers more than one class.
    """

    name = "unbounded"
    question = "Does accuracy fall to 0 without a budget?"
    tests: ClassVar[int] = 1

    def ask(self, trial: Trial) -> Result:
        """Fail where more than the floor's share is shown to stand."""
        threat, x = trial.attack.threat, trial.subject.x
        answers = trial.outputs[0].argmax(1)
        if bool((answers == answers[0]).all()):
            return Result("not run", "It answers one class for all inputs.")
        across = float(norms((x.amax(0) - x.amin(0))[None], threat.norm))
        eps = math.inf if threat.box is not None else max(threat.eps, across)
        stands = trial.under(trial.through(PGD(threat=replace(threat, eps=eps), steps=100)))
        share = float(stands.double().mean())
        figures = {"standing": share}
        if at_least(int(stands.sum()), trial.count, trial.floor) <= trial.level:
            told = f"{share:.1%} of the inputs stand even without a budget."
            return Result("fail", told, figures, next=black_box(trial))
        return Result("pass", f"{share:.1%} of the inputs stand without a budget.", figures)
