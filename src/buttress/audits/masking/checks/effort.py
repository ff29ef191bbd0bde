"""Does the attack gain by trying harder: more steps, more starts, another loss?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from buttress.attacks import Attack
from buttress.audits.masking.checks.check import Check, CheckContext, Kind, Result


def more_effort(context: CheckContext, attack: Attack, what: str) -> Result:
    """The attack with more effort: it may win a little, or lose a little where its steps are smaller; not more.

    Where it is another attack, because this one has no such setting, it may lose.
    """
    more = context.compare(attack, effort=True)
    less = context.compare_robust(
        (more.reference, context.robust), (more.challenger, context.robust_under(attack)), effort=True
    )
    if more.stronger:
        reason = f"{more.challenger} succeeds on {more.surplus:.1%} more of the inputs: {what}."
        return Result("fail", reason, {}, (more, less), attack)
    if less.stronger and type(attack.innermost) is type(context.attack.innermost):
        fewer = f"{less.surplus:.1%} fewer of the inputs than {more.reference}"
        reason = f"{more.challenger} succeeds on {fewer}: it is led astray."
        return Result("fail", reason, {}, (more, less), attack)
    return Result("pass", f"{more.challenger} succeeds on {more.surplus:+.1%} of the inputs.", {}, (more, less))


class _MoreEffort(Check, ABC):
    kind: ClassVar[Kind] = "more effort"
    tests: ClassVar[int] = 2
    what: ClassVar[str]

    @abstractmethod
    def changes(self, context: CheckContext) -> dict[str, Any]:
        """The settings that differ."""

    def attacks(self, context: CheckContext) -> list[Attack]:
        """The attack with them."""
        return [context.varied(**self.changes(context))]

    def ask(self, context: CheckContext) -> Result:
        """Fail where more effort wins more than is tolerated, or loses."""
        (attack,) = self.attacks(context)
        if attack.fingerprint() == context.attack.fingerprint():
            return Result("not run", f"{attack.label()} has nothing more of that to give.")
        return more_effort(context, attack, self.what)


class Steps(_MoreEffort):
    """Five times the steps: an attack that has converged gains little."""

    name = "more steps"
    question = "Has it converged?"
    what = "it had not converged"

    def changes(self, context: CheckContext) -> dict[str, Any]:
        """Five times the steps, 100 at least."""
        return {"steps": max(100, 5 * context.steps)}


class Restarts(_MoreEffort):
    """Five times the random starts."""

    name = "more restarts"
    question = "Does it matter where it starts?"
    what = "it depends on where it starts"

    def changes(self, context: CheckContext) -> dict[str, Any]:
        """Five times the starts."""
        return {"restarts": 5 * max(1, int(context.attack.innermost.settings().get("restarts", 1)))}


class OtherLoss(_MoreEffort):
    """The margin of logits in place of the cross-entropy, or the other way round."""

    name = "other loss"
    question = "Does it matter which loss it climbs?"
    what = "its loss misled it"

    def changes(self, context: CheckContext) -> dict[str, Any]:
        """The margin; cross-entropy where the attack climbs the margin already."""
        loss = context.attack.innermost.settings().get("loss")
        return {"loss": "cross_entropy" if loss == "margin" else "margin"}
