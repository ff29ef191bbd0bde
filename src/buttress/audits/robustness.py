"""Robust accuracy over a range of budgets, under each attack and under the worst of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Attack, Perturbation
from buttress.attacks.composed.certified_first import CertifiedFirst
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm
from buttress.audits.base.audit import Audit
from buttress.audits.base.budget_sweep import Cost, Sweep, cost, distances, runs, sweep
from buttress.audits.base.budget_sweep import at_budget as at_budget
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.rating import rate
from buttress.audits.base.statistics import INTERVAL, paired
from buttress.audits.base.statistics import accuracy as _accuracy
from buttress.audits.base.statistics import interval as interval
from buttress.audits.base.subject import Subject, same_inputs
from buttress.audits.base.work import Work, asked
from buttress.certificates import Verifier
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.tasks import Task
from buttress.validation import number


@audit("robustness")
@dataclass(frozen=True, kw_only=True)
class Robustness(Audit):
    """Accuracy over budgets with exact intervals, distances, paired differences, and what each attack cost.

    The R&G score is the sum of the accuracies, in percent, over the budgets (Khalooei et al., arXiv 2202.02626).
    Every attack is run at every budget; one that looks for the smallest perturbation is run once, without a limit: its
    distances give the robust accuracy at any budget, and their median is reported. An input is robust under all attacks
    together only where none of them is successful. That means something within one norm and one box only: other norms
    need an audit of their own.

    Args:
        attacks: all of one norm and one box; the eps of the first is the main budget, where it has a limit.
        noises: perturbations without a threat, scored as they are.
        eps: the budgets; 0, 1/4, 1/2, 1, 3/2 and 2 times the main one unless given. The attacks' own are added.
        verifier: what it certifies at a budget is not attacked there, with the same verdicts; nothing unless given. An
            attack that looks for the smallest perturbation is run as it is.
        reuse: count a success at a smaller budget at the larger ones too, and attack there only the inputs that are
            still robust; otherwise every input is attacked anew.
    """

    topic: ClassVar[Topic] = "How robust it is"
    needs_classes = False

    attacks: Sequence[Attack] = (PGD(steps=20),)
    noises: Sequence[Perturbation] = ()
    eps: Sequence[float] | None = None
    verifier: Verifier | None = None
    reuse: bool = True

    def __post_init__(self) -> None:
        """Refuse what has no budget."""
        if not self.attacks:
            raise UserError("a robustness audit needs at least one attack; got none")
        for attack in self.attacks:
            if not isinstance(attack, Attack):
                raise UserError(f"{attack.label()} has no threat, so no budget: list it under noises")
        for eps in self.eps or ():
            number("eps", eps, "[0, inf]")

    @property
    def _resolved(self) -> list[Attack]:
        attacks = [attack.within() for attack in self.attacks]
        return attacks if self.verifier is None else [self._certified(attack) for attack in attacks]

    def _certified(self, attack: Attack) -> Attack:
        """The attack on what is not certified."""
        assert self.verifier is not None
        finite = not isinstance(attack.innermost, MinimumNorm)
        return CertifiedFirst(attack=attack, verifier=self.verifier) if finite else attack

    @property
    def main_eps(self) -> float:
        """The budget in the verdict."""
        limited = [attack.threat.eps for attack in self._resolved if not _unlimited(attack)]
        return [*limited, *(eps for eps in self.eps or () if eps > 0), math.inf][0]

    @property
    def budgets(self) -> list[float]:
        """All budgets, rising, 0 and the attacks' own among them."""
        main = self.main_eps
        spread = (0.25, 0.5, 1.0, 1.5, 2.0) if math.isfinite(main) else (1.0,)
        budgets = [main * share for share in spread] if self.eps is None else [main, *self.eps]
        return sorted({0.0, *(attack.threat.eps for attack in self._resolved if not _unlimited(attack)), *budgets})

    @property
    def runs(self) -> list[Attack]:
        """The attacks as they will be run, over all budgets; with ``reuse`` most of them on part of the inputs."""
        return [run for attack in self._resolved for run in runs(attack, self.budgets)]

    def work(self, subject: Subject) -> Work:
        """Each attack at each budget, as if every input were robust so far; and the noises."""
        count = len(subject.y)
        return Work(asked([*self.runs, *self.noises], count, "first"), PassCount(count))

    def ask(self, subject: Subject) -> Finding:
        """Attack every input at every budget.

        Raises:
            UserError: when the attacks are of several norms or boxes, whose budgets cannot be compared.
        """
        # Not sooner: a job's threat replaces those that were left at their default.
        for kind in ("norm", "box", "mask", "shares"):
            distinct = dict.fromkeys(getattr(attack.threat, kind) for attack in self.attacks)
            if len(distinct) > 1:
                values = " and ".join(map(str, distinct))
                raise UserError(
                    f"the attacks of one robustness audit share a {kind}; got {values}: run an audit of each"
                )
        correct = ~subject.task.is_adversarial(subject.logits, subject.y)
        sweeps = [sweep(subject, attack, self.budgets, correct, reuse=self.reuse) for attack in self._resolved]
        robust = {eps: _all([result.robust[eps] for result in sweeps]) for eps in self.budgets}
        rows = [
            self._row(attack, result, correct, subject.seed, len(subject.classes))
            for attack, result in zip(self.attacks, sweeps, strict=True)
        ]
        noises = [
            {**_name_and_label(noise), **cost(timed).each(len(correct)), **_accuracy(correct & ~timed.outcome.success)}
            for noise in self.noises
            for timed in [subject.attacked(noise, search="first")]
        ]
        clean, main = _accuracy(correct), _accuracy(robust[self.main_eps])
        data = {
            "inputs": len(correct),
            **({} if subject.task.classes else {"score": subject.task.score_name, "right": subject.task.right}),
            "seed": subject.seed,
            "precision": subject.precision,
            "interval": INTERVAL,
            "chance": subject.chance,
            "main_eps": self.main_eps,
            **{name: value for name, value in self.attacks[0].threat.facts().items() if name not in ("norm", "eps")},
            "reuse": self.reuse,
            "attacks": rows,
            "fingerprints": sorted(attack.fingerprint() for attack in self.attacks),
            "noises": noises,
            "worst": [{"eps": eps, **_accuracy(rows)} for eps, rows in robust.items()],
            "paired": self._paired(sweeps, subject.seed),
            "same_inputs": same_inputs(subject),
            "stands": {"clean": _bit_string(correct), "main": _bit_string(robust[self.main_eps])},
        }
        data |= self._smallest_distances(sweeps, correct, subject.seed)
        title = f"Robustness ({self.attacks[0].threat.norm})"
        verdict = self._verdict(clean, main, len(correct), subject.task) + self._distance_sentence(data)
        return Finding("robustness", title, verdict, rate(clean, main, subject.chance), data)

    def _row(self, attack: Attack, result: Sweep, correct: Tensor, seed: int, classes: int) -> dict[str, Any]:
        count, total = len(correct), result.total
        # One run without a limit is that for all budgets, the main one too.
        main = total if result.distance is not None else result.costs.get(self.main_eps, Cost())
        stages = next((c.stages for eps, c in result.costs.items() if eps in (self.main_eps, math.inf)), ())
        curve = [
            {"eps": eps, **_accuracy(rows), "reused": result.reused.get(eps, 0)} for eps, rows in result.robust.items()
        ]
        row = {
            **_name_and_label(attack),
            **main.each(count),
            "total": total.each(count),
            "norm": attack.threat.norm,
            "curve": curve,
            "r_and_g": 100 * sum(point["accuracy"] for point in curve),
            "stages": [stage.facts() for stage in stages],
        }
        if self.verifier is not None and result.distance is None:
            row |= _spared(attack, result, self.main_eps, classes)
        return row if result.distance is None else {**row, "distances": distances(result.distance, correct, seed)}

    def _smallest_distances(self, sweeps: Sequence[Sweep], correct: Tensor, seed: int) -> dict[str, Any]:
        """The smallest distance that any attack found, input by input."""
        by_attack = [result.distance for result in sweeps if result.distance is not None]
        return {"distances": distances(torch.stack(by_attack).amin(0), correct, seed)} if by_attack else {}

    def _distance_sentence(self, data: dict[str, Any]) -> str:
        distance = data.get("distances", {})
        if not math.isfinite(distance.get("median", math.inf)):
            return ""
        return (
            f" The median {self.attacks[0].threat.norm} distance to an adversarial example is at most "
            f"{distance['median']:.3g} ({distance['low']:.3g} to {distance['high']:.3g})."
        )

    def _paired(self, sweeps: Sequence[Sweep], seed: int) -> list[dict[str, Any]]:
        """Every attack against the first, input by input at the main budget."""
        first, *others = (
            (attack.label(), result.robust[self.main_eps]) for attack, result in zip(self.attacks, sweeps, strict=True)
        )
        return [{"first": first[0], "second": name, **paired(first[1], robust, seed)} for name, robust in others]

    def _verdict(self, clean: dict[str, float], main: dict[str, float], count: int, task: Task) -> str:
        *before, last = (attack.label() for attack in self.attacks)
        names = f"{', '.join(before)} and {last}" if before else last
        threat = self.attacks[0].threat
        return (
            f"{clean['accuracy']:.1%} of {count} inputs are {task.right}; robust {task.score_name} is "
            f"{main['accuracy']:.1%} ({main['low']:.1%} to {main['high']:.1%}) under {names} at "
            f"{threat.text(self.main_eps)}."
        )


def _spared(attack: Attack, result: Sweep, eps: float, classes: int) -> dict[str, Any]:
    """How many inputs were certified at the main budget, and the passes that these would have taken at most."""
    stages = result.costs[eps].stages if eps in result.costs else ()
    count = next((stage.entered for stage in stages if stage.name.startswith("certified by ")), 0)
    most = attack.most_passes(classes)
    passes = {} if most is None else {"forwards": count * most.forwards, "backwards": count * most.backwards}
    return {"certified": count, "spared": passes}


def _bit_string(rows: Tensor) -> str:
    """Yes or no for each input, in order: "1101"."""
    return "".join("1" if row else "0" for row in rows.tolist())


def _all(parts: Sequence[Tensor]) -> Tensor:
    """(N,) bool: true where each is."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole & part
    return whole


def _unlimited(attack: Attack) -> bool:
    return isinstance(attack.innermost, MinimumNorm) and math.isinf(attack.threat.eps)


def _name_and_label(attack: Perturbation) -> dict[str, Any]:
    return {"name": registered_attacks.name_of(attack), "label": attack.label()}
