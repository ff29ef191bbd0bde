"""Does the network defend itself in eval mode only?"""

from __future__ import annotations

from typing import ClassVar

from buttress.audits.checks.base import Check, Result, Trial
from buttress.audits.checks.proposal import black_box
from buttress.audits.naming import describe


class TrainMode(Check):
    """Examples crafted against the network in train mode, and judged in eval mode.

    In train mode BatchNorm takes the statistics of these inputs and whatever is done only when a network is used, such
    as rounding, is left out. That is a network of its own: what is crafted there must not beat more than the attack
    that sees the real one.
    """

    name = "train mode"
    question = "Do examples made in train mode beat more?"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 2

    def ask(self, trial: Trial) -> Result:
        """Fail where they do."""
        about, attack = trial.subject, trial.attack
        if trial.count < 2:
            return Result("not run", "One input has no statistics of a batch.")
        x_adv = attack.craft(
            about.model, about.x, about.y, task=about.task, seed=about.seed, ids=about.ids, mode="train"
        )
        found = trial.judge((f"{describe(attack)} in train mode", trial.moved(x_adv)))
        if found.stronger:
            told = f"Examples made in train mode beat {found.surplus:.1%} more: eval mode hides its gradient."
            return Result("fail", told, {}, (found,), black_box(trial))
        return Result("pass", "Examples made in train mode beat no more.", {}, (found,))
