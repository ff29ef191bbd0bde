"""Do examples crafted on something else succeed more often: on the network in train mode, or on a surrogate?"""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from buttress.attacks import Attack
from buttress.attacks.composed.transfer import Transfer
from buttress.audits.masking.checks.check import Check, CheckContext, Result
from buttress.audits.masking.checks.proposal import black_box
from buttress.engine.pass_count import PassCount


class TrainMode(Check):
    """Examples crafted against the network in train mode, and judged in eval mode.

    In train mode BatchNorm takes the statistics of the inputs that it sees together, and whatever is done only when a
    network is used, such as rounding, is left out. That is a network of its own: examples crafted there must not be
    successful more often than those of the attack on the real one. Inputs are taken in batches of the audit's batch
    size, in order and as equal as can be, two at least: so that size is part of the result, and is reported with it.
    """

    name = "train mode"
    question = "Are examples crafted in train mode more successful?"
    cause: ClassVar[bool] = True
    tests: ClassVar[int] = 2

    def passes(self, context: CheckContext) -> PassCount:
        """Those of the attack once more, which is no run that others share."""
        return context.attack.most_passes(context.subject.logits[0].numel()) or PassCount()

    def ask(self, context: CheckContext) -> Result:
        """Fail where they do."""
        subject, attack = context.subject, context.attack
        if context.count < 2:
            return Result("not run", "One input is no batch with statistics.")
        parts = min(math.ceil(context.count / subject.batch_size), context.count // 2)
        batches = list(zip(*(t.tensor_split(parts) for t in (subject.x, subject.y, subject.ids)), strict=True))
        x_adv = torch.cat(
            [
                attack.craft(subject.model, x, y, task=subject.task, seed=subject.seed, ids=ids, mode="train")
                for x, y, ids in batches
            ]
        )
        figures = {"batch_size": float(len(batches[0][0]))}
        pair = context.compare_robust((f"{attack.label()} in train mode", context.robust_at(x_adv)))
        if pair.stronger:
            reason = f"Examples crafted in train mode succeed on {pair.surplus:.1%} more: eval mode hides its gradient."
            return Result("fail", reason, figures, (pair,), black_box(context))
        return Result("pass", "Examples crafted in train mode are no more successful.", figures, (pair,))


class Transferred(Check):
    """The attack run on a surrogate, its examples given to the network, against the attack on the network itself."""

    name = "transfer"
    question = "Are another network's examples more successful?"
    tests: ClassVar[int] = 2
    needs_gradient = False

    def attacks(self, context: CheckContext) -> list[Attack]:
        """The attack on the surrogate, where there is one."""
        return [] if context.surrogate is None else [Transfer(attack=context.attack, surrogate=context.surrogate)]

    def ask(self, context: CheckContext) -> Result:
        """Fail where they do."""
        attacks = self.attacks(context)
        if not attacks:
            return Result(
                "not run",
                "Give a network of the same task as surrogate: surrogate=NETWORK in Python, "
                "--audits masking --audits.surrogate FOLDER (of a run) on the command line.",
            )
        pair = context.compare_robust((f"{context.attack.label()} on the surrogate", context.robust_under(attacks[0])))
        if not pair.stronger:
            return Result("pass", f"They succeed on {pair.won} inputs that the attack misses.", {}, (pair,))
        reason = f"The surrogate's examples succeed on {pair.won} inputs that the attack misses, of {pair.inputs}."
        return Result("fail", reason, {}, (pair,), black_box(context, more=2))
