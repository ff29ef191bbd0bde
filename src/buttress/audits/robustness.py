"""How robust is it: accuracy over a range of budgets, under each attack and under the worst of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress.attacks import Attack, Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm
from buttress.audits.base.budget_sweep import Cost, Sweep, cost, distances, runs, sweep
from buttress.audits.base.budget_sweep import at_budget as at_budget
from buttress.audits.base.finding import Finding, Severity
from buttress.audits.base.statistics import INTERVAL, paired
from buttress.audits.base.statistics import accuracy as _accuracy
from buttress.audits.base.statistics import interval as interval
from buttress.audits.base.subject import Audit, Subject, describe, same_inputs
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.threat import Threat, budget_text


@audit("robustness")
@dataclass(frozen=True, kw_only=True)
class Robustness(Audit):
    """Accuracy over budgets with exact intervals, distances, paired differences, and what each attack cost.

    The R&G score is the sum of the accuracies, in percent, over the budgets (Khalooei et al., arXiv 2202.02626).
    Every attack is run at every budget; one that looks for the smallest perturbation is run once, without a limit: its
    distances say who stands at any budget, and their median is told. An input counts as standing under all attacks
    together only when it withstands each. That means something within one norm and one box only: other norms need an
    audit of their own.

    Args:
        attacks: all of one norm and one box; the eps of the first is the main budget, where it has a limit.
        noises: perturbations without a threat, scored as they are.
        eps: the budgets; 0, 1/4, 1/2, 1, 3/2 and 2 times the main one unless given. The attacks' own are added.
        reuse: count what an attack beat at a smaller budget as beaten at the larger ones, and attack there only what
            still stands; otherwise every input is attacked anew.
    """

    attacks: Sequence[Attack] = (PGD(steps=20),)
    noises: Sequence[Perturbation] = ()
    eps: Sequence[float] | None = None
    reuse: bool = True

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
    def _resolved(self) -> list[Attack]:
        return [attack.within() for attack in self.attacks]

    @property
    def main_eps(self) -> float:
        """The budget that the verdict speaks of."""
        limited = [attack.threat.eps for attack in self._resolved if not _unlimited(attack)]
        return [*limited, *(eps for eps in self.eps or () if eps > 0), math.inf][0]

    @property
    def budgets(self) -> list[float]:
        """All budgets, rising, 0 and the attacks' own among them."""
        main = self.main_eps
        spread = (0.25, 0.5, 1.0, 1.5, 2.0) if math.isfinite(main) else (1.0,)
        asked = [main * share for share in spread] if self.eps is None else [main, *self.eps]
        return sorted({0.0, *(attack.threat.eps for attack in self._resolved if not _unlimited(attack)), *asked})

    @property
    def runs(self) -> list[Attack]:
        """The attacks as they will be run, over all budgets; with ``reuse`` most of them on part of the inputs."""
        return [run for attack in self._resolved for run in runs(attack, self.budgets)]

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
        right = ~subject.task.is_adversarial(subject.logits, subject.y)
        found = [sweep(subject, attack, self.budgets, right, reuse=self.reuse) for attack in self.attacks]
        stands = {eps: _all([one.stands[eps] for one in found]) for eps in self.budgets}
        rows = [self._row(attack, one, right, subject.seed) for attack, one in zip(self.attacks, found, strict=True)]
        noises = [
            {**_named(noise), **cost(timed).each(len(right)), **_accuracy(right & ~timed.outcome.success)}
            for noise in self.noises
            for timed in [subject.attacked(noise, search="first")]
        ]
        clean, main = _accuracy(right), _accuracy(stands[self.main_eps])
        data = {
            "inputs": len(right),
            "seed": subject.seed,
            "precision": subject.precision,
            "interval": INTERVAL,
            "main_eps": self.main_eps,
            "box": subject_box(self.attacks[0].threat),
            "reuse": self.reuse,
            "attacks": rows,
            "fingerprints": sorted(attack.fingerprint() for attack in self.attacks),
            "noises": noises,
            "worst": [{"eps": eps, **_accuracy(one)} for eps, one in stands.items()],
            "paired": self._paired(found, subject.seed),
            "same_inputs": same_inputs(subject),
            "stands": {"clean": _digits(right), "main": _digits(stands[self.main_eps])},
        }
        data |= self._nearest(found, right, subject.seed)
        title = f"Robustness ({self.attacks[0].threat.norm})"
        verdict = self._verdict(clean, main, len(right)) + self._told(data)
        return Finding("robustness", title, verdict, _severity(clean, main), data)

    def _row(self, attack: Attack, found: Sweep, right: Tensor, seed: int) -> dict[str, Any]:
        count, total = len(right), found.total
        # One run without a limit stands for all budgets, the main one too.
        main = total if found.distance is not None else found.costs.get(self.main_eps, Cost())
        stages = next((c.stages for eps, c in found.costs.items() if eps in (self.main_eps, math.inf)), ())
        curve = [
            {"eps": eps, **_accuracy(one), "reused": found.reused.get(eps, 0)} for eps, one in found.stands.items()
        ]
        row = {
            **_named(attack),
            **main.each(count),
            "total": total.each(count),
            "norm": attack.threat.norm,
            "curve": curve,
            "r_and_g": 100 * sum(point["accuracy"] for point in curve),
            "stages": [stage.facts() for stage in stages],
        }
        return row if found.distance is None else {**row, "distances": distances(found.distance, right, seed)}

    def _nearest(self, found: Sequence[Sweep], right: Tensor, seed: int) -> dict[str, Any]:
        """The smallest distance that any attack has found, input by input."""
        known = [one.distance for one in found if one.distance is not None]
        return {"distances": distances(torch.stack(known).amin(0), right, seed)} if known else {}

    def _told(self, data: dict[str, Any]) -> str:
        found = data.get("distances", {})
        if not math.isfinite(found.get("median", math.inf)):
            return ""
        return (
            f" The median {self.attacks[0].threat.norm} distance to an input that beats the network is at most "
            f"{found['median']:.3g} ({found['low']:.3g} to {found['high']:.3g})."
        )

    def _paired(self, found: Sequence[Sweep], seed: int) -> list[dict[str, Any]]:
        """Every attack against the first, input by input at the main budget."""
        first, *others = (
            (describe(attack), one.stands[self.main_eps]) for attack, one in zip(self.attacks, found, strict=True)
        )
        return [{"first": first[0], "second": name, **paired(first[1], stands, seed)} for name, stands in others]

    def _verdict(self, clean: dict[str, float], main: dict[str, float], count: int) -> str:
        *before, last = (describe(attack) for attack in self.attacks)
        names = f"{', '.join(before)} and {last}" if before else last
        threat = self.attacks[0].threat
        return (
            f"{clean['accuracy']:.1%} of {count} inputs are classified correctly; {main['accuracy']:.1%} "
            f"({main['low']:.1%} to {main['high']:.1%}) still are under {names} at {threat.norm} "
            f"eps {budget_text(self.main_eps)}."
        )


def subject_box(threat: Threat) -> list[float] | None:
    """The box as plain data."""
    return None if threat.box is None else list(threat.box)


def _digits(found: Tensor) -> str:
    """Yes or no for each input, in order: "1101"."""
    return "".join("1" if one else "0" for one in found.tolist())


def _all(parts: Sequence[Tensor]) -> Tensor:
    """(N,) bool: true where each is."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole & part
    return whole


def _unlimited(attack: Attack) -> bool:
    return isinstance(attack.innermost, MinimumNorm) and math.isinf(attack.threat.eps)


def _named(attack: Perturbation) -> dict[str, Any]:
    return {"name": registered_attacks.name_of(attack), "label": describe(attack)}


def _severity(clean: dict[str, float], main: dict[str, float]) -> Severity:
    """Bad when the attacker nearly always wins, a warning when it wins over half of what was right."""
    if main["accuracy"] < 0.1 * clean["accuracy"] or clean["accuracy"] == 0:
        return "bad"
    return "warning" if main["accuracy"] < 0.5 * clean["accuracy"] else "good"
