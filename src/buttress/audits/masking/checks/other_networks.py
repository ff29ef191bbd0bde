"""Do examples crafted on something else succeed more often: on the network in train mode, or on a surrogate?"""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from buttress.attacks.composed.transfer import Transfer
from buttress.audits.base.attack_label import describe
from buttress.audits.masking.checks.check import Check, Result, Trial
from buttress.audits.masking.checks.proposal import black_box


class TrainMode(Check):
    """Examples crafted against the network in train mode, and judged in eval mode.

    In train mode BatchNorm takes the statistics of the inputs that it sees together, and whatever is done only when a
    network is used, such as rounding, is left out. That is a network of its own: what is crafted there must not beat
    more than the attack that sees the real one. Inputs are taken in batches of the audit's batch size, in order and as
    equal as can be, two at least: so that size is part of the answer, and is told with it.
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
        parts = min(math.ceil(trial.count / about.batch_size), trial.count // 2)
        batches = list(zip(*(t.tensor_split(parts) for t in (about.x, about.y, about.ids)), strict=True))
        x_adv = torch.cat(
            [
                attack.craft(about.model, x, y, task=about.task, seed=about.seed, ids=ids, mode="train")
                for x, y, ids in batches
            ]
        )
        figures = {"batch_size": float(len(batches[0][0]))}
        found = trial.judge((f"{describe(attack)} in train mode", trial.moved(x_adv)))
        if found.stronger:
            told = f"Examples made in train mode beat {found.surplus:.1%} more: eval mode hides its gradient."
            return Result("fail", told, figures, (found,), black_box(trial))
        return Result("pass", "Examples made in train mode beat no more.", figures, (found,))


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
