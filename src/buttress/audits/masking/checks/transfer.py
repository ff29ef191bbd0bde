"""Do another network's examples beat more than this one's own?"""

from __future__ import annotations

from typing import ClassVar

from buttress.attacks.composed.transfer import Transfer
from buttress.audits.base.attack_label import describe
from buttress.audits.masking.checks.check import Check, Result, Trial
from buttress.audits.masking.checks.proposal import black_box


class Transferred(Check):
    """The attack run on a surrogate, its examples given to the network, against the attack on the network itself."""

    name = "transfer"
    question = "Do another network's examples beat more?"
    tests: ClassVar[int] = 2
    needs_gradient = False

    def ask(self, trial: Trial) -> Result:
        """Fail where they do."""
        if trial.surrogate is None:
            return Result(
                "not run",
                "Give a network of the same task as surrogate: surrogate=NETWORK in Python, "
                "--audits masking --audits.surrogate FOLDER (of a run) on the command line.",
            )
        attack = Transfer(attack=trial.attack, surrogate=trial.surrogate)
        found = trial.judge((f"{describe(trial.attack)} on the surrogate", trial.under(attack)))
        if not found.stronger:
            return Result("pass", f"They beat {found.won} inputs that the attack does not.", {}, (found,))
        told = f"The surrogate's examples beat {found.won} inputs that the attack does not, of {found.inputs}."
        return Result("fail", told, {}, (found,), black_box(trial, more=2))
