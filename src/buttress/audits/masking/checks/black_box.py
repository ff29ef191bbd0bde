"""Does an attack without gradients beat more?"""

from __future__ import annotations

from typing import ClassVar

from buttress.attacks.black_box.square import Square
from buttress.audits.masking.checks.check import Check, Kind, Result, Trial
from buttress.audits.masking.checks.proposal import black_box


class BlackBox(Check):
    """Square (Andriushchenko et al., ECCV 2020), which asks for outputs only, against the attack."""

    name = "black box"
    question = "Does an attack without gradients beat more?"
    kind: ClassVar[Kind] = "gradient-free"
    tests: ClassVar[int] = 2
    needs_gradient = False

    def ask(self, trial: Trial) -> Result:
        """Fail where it does: gradients are the better guide wherever they are honest."""
        square = Square(threat=trial.attack.threat, queries=trial.queries)
        found = trial.judge((f"Square with {trial.queries} queries", trial.under(square)))
        if not found.stronger:
            return Result("pass", f"Square beats {found.won} inputs that the attack does not.", {}, (found,))
        told = f"Square beats {found.won} inputs that the attack does not, and misses {found.lost} that it beats."
        return Result("fail", told, {}, (found,), black_box(trial, more=2))
