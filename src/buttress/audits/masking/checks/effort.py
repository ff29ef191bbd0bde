"""Does the attack gain by trying harder: more steps, more starts, another loss?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from buttress.attacks import Attack
from buttress.audits.base.attack_label import describe
from buttress.audits.masking.checks.check import Check, Kind, Result, Trial


def harder(trial: Trial, attack: Attack, what: str) -> Result:
    """The attack with more effort: it may win a little, or lose a little where its steps are smaller; not more.

    Where it is another attack, because this one has no such setting, it may lose.
    """
    more = trial.compare(attack, effort=True)
    less = trial.judge((more.reference, trial.stands), (more.challenger, trial.under(attack)), effort=True)
    if more.stronger:
        told = f"{more.challenger} beats {more.surplus:.1%} more of the inputs: {what}."
        return Result("fail", told, {}, (more, less), attack)
    if less.stronger and type(attack.innermost) is type(trial.attack.innermost):
        told = (
            f"{more.challenger} beats {less.surplus:.1%} fewer of the inputs than {more.reference}: it is led astray."
        )
        return Result("fail", told, {}, (more, less), attack)
    return Result("pass", f"{more.challenger} beats {more.surplus:+.1%} of the inputs.", {}, (more, less))


class _Harder(Check, ABC):
    kind: ClassVar[Kind] = "more effort"
    tests: ClassVar[int] = 2
    what: ClassVar[str]

    @abstractmethod
    def changes(self, trial: Trial) -> dict[str, Any]:
        """The settings that differ."""

    def ask(self, trial: Trial) -> Result:
        """Fail where more effort wins more than is tolerated, or loses."""
        attack = trial.varied(**self.changes(trial))
        if attack.fingerprint() == trial.attack.fingerprint():
            return Result("not run", f"{describe(attack)} has nothing more of that to give.")
        return harder(trial, attack, self.what)


class Steps(_Harder):
    """Five times the steps: an attack that has converged gains little."""

    name = "more steps"
    question = "Has it converged?"
    what = "it had not converged"

    def changes(self, trial: Trial) -> dict[str, Any]:
        """Five times the steps, 100 at least."""
        return {"steps": max(100, 5 * trial.steps)}


class Restarts(_Harder):
    """Five times the random starts."""

    name = "more restarts"
    question = "Does it matter where it starts?"
    what = "it depends on where it starts"

    def changes(self, trial: Trial) -> dict[str, Any]:
        """Five times the starts."""
        return {"restarts": 5 * max(1, int(trial.attack.innermost.settings().get("restarts", 1)))}


class OtherLoss(_Harder):
    """The margin of logits in place of the cross-entropy, or the other way round."""

    name = "other loss"
    question = "Does it matter which loss it climbs?"
    what = "its loss misled it"

    def changes(self, trial: Trial) -> dict[str, Any]:
        """The margin; cross-entropy where the attack climbs the margin already."""
        loss = trial.attack.innermost.settings().get("loss")
        return {"loss": "cross_entropy" if loss == "margin" else "margin"}
