"""How robust is it: accuracy over a range of budgets, under each attack and under the worst of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from buttress.attacks import Attack, Perturbation
from buttress.attacks.pgd import PGD
from buttress.audits.base import Audit, Subject, Timed, describe, same_inputs
from buttress.audits.finding import Finding, Severity
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.threat import Threat, budget_text

INTERVAL = "exact binomial, 95 %"


def interval(successes: int, count: int) -> tuple[float, float]:
    """The exact binomial interval at 95 % (Clopper and Pearson, 1934)."""
    from scipy.stats import binomtest

    bounds = binomtest(successes, count).proportion_ci(0.95, method="exact")
    return float(bounds.low), float(bounds.high)


def at_budget(attack: Attack, eps: float) -> Attack:
    """The same attack under another eps; an explicit step size keeps its proportion to eps."""
    changes: dict[str, Any] = {"threat": replace(attack.threat, eps=eps)}
    step = getattr(attack, "step_size", None)
    if step is not None and math.isfinite(attack.threat.eps) and math.isfinite(eps) and attack.threat.eps > 0:
        changes["step_size"] = step * eps / attack.threat.eps
    return cast(Attack, replace(cast(Any, attack), **changes))


@audit("robustness")
@dataclass(frozen=True, kw_only=True)
class Robustness(Audit):
    """Accuracy over budgets with exact intervals, the R&G score, and what each attack cost.

    The R&G score is the sum of the accuracies, in percent, over the budgets (Khalooei et al., arXiv 2202.02626).
    Every attack is run at every budget, and an input counts as standing under all of them together only when it
    withstands each. That means something within one norm and one box only: other norms need an audit of their own.

    Args:
        attacks: all of one norm and one box; the eps of the first is the main budget.
        noises: perturbations without a threat, scored as they are.
        eps: the budgets; 0, 1/4, 1/2, 1, 3/2 and 2 times the main one unless given. The attacks' own are added.
    """

    attacks: Sequence[Attack] = (PGD(threat=Threat(), steps=20),)
    noises: Sequence[Perturbation] = ()
    eps: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse what has no budget."""
        if not self.attacks:
            raise UserError("a robustness audit needs at least one attack; got none")
        for attack in self.attacks:
            if not isinstance(attack, Attack):
                raise UserError(f"{describe(attack)} has no threat, so no budget: list it under noises")
        if self.eps is not None and any(not e >= 0 for e in self.eps):
            raise UserError(f"eps must be 0 or more, in input units such as 8/255; got {list(self.eps)}")

    @property
    def main_eps(self) -> float:
        """The budget that the verdict speaks of."""
        return self.attacks[0].threat.eps

    @property
    def budgets(self) -> list[float]:
        """All budgets, rising, 0 and the attacks' own among them."""
        main = self.main_eps
        spread = (0.25, 0.5, 1.0, 1.5, 2.0) if math.isfinite(main) else (1.0,)
        asked = [main * share for share in spread] if self.eps is None else list(self.eps)
        return sorted({0.0, *(attack.threat.eps for attack in self.attacks), *asked})

    def ask(self, subject: Subject) -> Finding:
        """Attack every input at every budget.

        Raises:
            UserError: when the attacks are of several norms or boxes, whose budgets cannot be compared.
        """
        # Not sooner: the threat of a job replaces those that were left at their default.
        for kind in ("norm", "box"):
            several = dict.fromkeys(getattr(attack.threat, kind) for attack in self.attacks)
            if len(several) > 1:
                told = " and ".join(map(str, several))
                raise UserError(f"the attacks of one robustness audit share a {kind}; got {told}: ask an audit of each")
        right = ~subject.task.beaten(subject.logits, subject.y)
        rows, stands = [], {eps: right.clone() for eps in self.budgets}
        for attack in self.attacks:
            curve, timed = [], None
            for eps in self.budgets:
                found = right
                if eps > 0:
                    result = subject.attacked(at_budget(attack, eps), search="first")
                    found = right & ~result.outcome.beaten
                    timed = result if eps == self.main_eps else timed
                stands[eps] &= found
                curve.append({"eps": eps, **_accuracy(found)})
            rows.append({**_row(attack, timed, len(right)), "norm": attack.threat.norm, "curve": curve})
        for row in rows:
            row["r_and_g"] = 100 * sum(point["accuracy"] for point in row["curve"])
        noises = [
            {**_row(noise, timed, len(right)), **_accuracy(right & ~timed.outcome.beaten)}
            for noise in self.noises
            for timed in [subject.attacked(noise, search="first")]
        ]
        worst = [{"eps": eps, **_accuracy(found)} for eps, found in stands.items()]
        clean, main = _accuracy(right), _accuracy(stands[self.main_eps])
        data = {
            "inputs": len(right),
            "seed": subject.seed,
            "precision": subject.precision,
            "interval": INTERVAL,
            "main_eps": self.main_eps,
            "box": subject_box(self.attacks[0].threat),
            "attacks": rows,
            "fingerprints": sorted(attack.fingerprint() for attack in self.attacks),
            "noises": noises,
            "worst": worst,
            "same_inputs": same_inputs(subject),
            "stands": {"clean": _digits(right), "main": _digits(stands[self.main_eps])},
        }
        title = f"Robustness ({self.attacks[0].threat.norm})"
        return Finding("robustness", title, self._verdict(clean, main, len(right)), _severity(clean, main), data)

    def _verdict(self, clean: dict[str, float], main: dict[str, float], count: int) -> str:
        *before, last = (describe(attack) for attack in self.attacks)
        names = f"{', '.join(before)} and {last}" if before else last
        threat = self.attacks[0].threat
        return (
            f"{clean['accuracy']:.1%} of {count} inputs are classified correctly; {main['accuracy']:.1%} "
            f"({main['low']:.1%} to {main['high']:.1%}) still are under {names} at {threat.norm} "
            f"eps {budget_text(threat.eps)}."
        )


def subject_box(threat: Threat) -> list[float] | None:
    """The box as plain data."""
    return None if threat.box is None else list(threat.box)


def _digits(found: Tensor) -> str:
    """Yes or no for each input, in order: "1101"."""
    return "".join("1" if one else "0" for one in found.tolist())


def _accuracy(found: Tensor) -> dict[str, float]:
    successes, count = int(found.sum()), len(found)
    low, high = interval(successes, count)
    return {"accuracy": successes / count, "low": low, "high": high}


def _row(attack: Perturbation, timed: Timed | None, count: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": registered_attacks.name_of(attack), "label": describe(attack)}
    if timed is not None:
        row["forwards"] = float(timed.outcome.forwards.to(torch.float64).mean())
        row["backwards"] = float(timed.outcome.backwards.to(torch.float64).mean())
        row["seconds"] = timed.seconds / count
    return row


def _severity(clean: dict[str, float], main: dict[str, float]) -> Severity:
    """Bad when the attacker nearly always wins, a warning when it wins over half of what was right."""
    if main["accuracy"] < 0.1 * clean["accuracy"] or clean["accuracy"] == 0:
        return "bad"
    return "warning" if main["accuracy"] < 0.5 * clean["accuracy"] else "good"
