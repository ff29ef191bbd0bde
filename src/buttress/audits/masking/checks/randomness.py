"""Is the network randomised? Then one pass gives neither a verdict nor a gradient."""

from __future__ import annotations

from typing import ClassVar

from buttress.attacks import Attack
from buttress.audits.masking.checks.check import PASSES, Check, CheckContext, Result
from buttress.audits.masking.checks.proposal import averaged
from buttress.engine.pass_count import PassCount


class Randomness(Check):
    """Repeated passes on the same inputs; where they differ, the attack with averaged gradients against itself.

    Expectation over transformation (Athalye et al., ICML 2018); the flag is that of AutoAttack: 5 passes, outputs of
    length 1 further apart than 1e-4, or other predictions.
    """

    name = "randomness"
    question = "Are outputs for the same input always the same?"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 2
    needs_gradient = False

    def attacks(self, context: CheckContext) -> list[Attack]:
        """Of a randomised network the attack with averaged gradients."""
        return [averaged(context)] if context.random and context.margin_gradients is not None else []

    def passes(self, context: CheckContext) -> PassCount:
        """Repeated ones of the same inputs."""
        return PassCount(PASSES)

    def ask(self, context: CheckContext) -> Result:
        """Warn where the network is randomised, fail where averaging shows that the attack was misled."""
        verdicts = context.outputs.argmax(2)
        changed = float((verdicts != verdicts[:1]).any(0).double().mean())
        figures = {"spread": context.spread, "changed_verdicts": changed}
        if not context.random:
            return Result("pass", "Repeated passes agree.", figures)
        reason = f"The network is randomised: repeated passes change the prediction on {changed:.0%} of the inputs"
        attacks = self.attacks(context)
        if not attacks:
            return Result("warn", f"{reason}.", figures)
        (attack,) = attacks
        pair = context.compare(attack)
        if context.attack.draws > 1 and not pair.stronger:
            reason += f"; {pair.reference} averages over draws, and more of them win {pair.surplus:+.1%}"
            return Result("pass", f"{reason}.", figures, (pair,))
        if pair.stronger:
            reason += f", and averaging gradients over its draws succeeds on {pair.surplus:.1%} more of them"
        return Result("fail" if pair.stronger else "warn", f"{reason}.", figures, (pair,), attack)
