"""Does the network draw at random? Then one pass is neither a verdict nor a gradient."""

from __future__ import annotations

from typing import ClassVar

from buttress.audits.masking.checks.check import Check, Result, Trial
from buttress.audits.masking.checks.proposal import averaged


class Randomness(Check):
    """Repeated passes on the same inputs; where they differ, the attack with averaged gradients against itself.

    Expectation over transformation (Athalye et al., ICML 2018); the flag is that of AutoAttack: 5 passes, outputs of
    length 1 further apart than 1e-4 or other verdicts.
    """

    name = "randomness"
    question = "Does it answer the same input always alike?"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 2
    needs_gradient = False

    def ask(self, trial: Trial) -> Result:
        """Warn where it draws at random, fail where averaging shows that the attack was misled."""
        verdicts = trial.outputs.argmax(2)
        changed = float((verdicts != verdicts[:1]).any(0).double().mean())
        figures = {"spread": trial.spread, "changed_verdicts": changed}
        if not trial.random:
            return Result("pass", "Repeated passes agree.", figures)
        told = f"It draws at random: repeated passes change the verdict on {changed:.0%} of the inputs"
        if trial.slopes is None:
            return Result("warn", f"{told}.", figures)
        attack = averaged(trial)
        found = trial.compare(attack)
        if trial.attack.draws > 1 and not found.stronger:
            told += f"; {found.reference} averages over them, and more draws win {found.surplus:+.1%}"
            return Result("pass", f"{told}.", figures, (found,))
        if found.stronger:
            told += f", and averaging gradients over its draws beats {found.surplus:.1%} more of them"
        return Result("fail" if found.stronger else "warn", f"{told}.", figures, (found,), attack)
