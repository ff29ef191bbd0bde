"""What is proven of a network beside what attacks achieve: true robust accuracy lies between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Attack
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import Audit
from buttress.audits.base.budget_sweep import at_budget
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.statistics import INTERVAL, accuracy
from buttress.audits.base.subject import Subject
from buttress.audits.base.verifying_time import verifying_seconds
from buttress.audits.base.work import Work, asked
from buttress.certificates import Certificate, Verifier, certify
from buttress.certificates.size import usual_verifier
from buttress.engine.pass_count import PassCount
from buttress.registry import audit
from buttress.validation import number, whole

_READING = 6  # passes of a network whose operations are read before it is bounded, about


@audit("certificates")
@dataclass(frozen=True, kw_only=True)
class Certificates(Audit):
    """Certified accuracy over budgets beside the accuracy that an attack leaves.

    A verifier shows of an input that no allowed perturbation changes the network's answer; an attack, that one does.
    The accuracy against the strongest possible attack is between both curves. Where an input is certified and attacked
    successfully, one of the two is wrong, which the finding says first: it is a bug in buttress, or in the arithmetic
    of the network's layers.

    Cost per input: the attack at each budget, and the verifiers at each budget that the input was verified for the
    next smaller one of; bounds are no passes.

    Args:
        verifiers: each tries what those before it left unknown; unless given CROWN for networks that are small enough
            for it, CROWN-IBP for others.
        attack: run at each budget.
        shares: the budgets, as shares of the attack's eps.
        inputs: how many are taken, evenly spread.
    """

    topic: ClassVar[Topic] = "How robust it is"

    verifiers: Sequence[Verifier] | None = None
    attack: Attack = PGD(steps=20)
    shares: Sequence[float] = (0.125, 0.25, 0.5, 1.0)
    inputs: int = 100

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for budget in self.shares:
            number("shares", budget, "(0, inf)")
        whole("inputs", self.inputs)

    def work(self, subject: Subject) -> Work:
        """The attack at each budget, and each verifier on every input at each, by how long two inputs take.

        Raises:
            UserError: for a network that cannot be bounded.
        """
        count, budgets = min(self.inputs, len(subject.y)), self._budgets
        verifiers = self._verifiers(subject.subset(1))
        attacks = asked([at_budget(self.attack, eps) for eps in budgets], count, "first")
        each = sum(verifying_seconds(subject, self.attack.within().threat, verifier) for verifier in verifiers)
        reading = PassCount(_READING * len(budgets) * len(verifiers)) * count
        return Work(attacks, PassCount(count) + reading, each * count * len(budgets))

    @property
    def _budgets(self) -> list[float]:
        return sorted({share * self.attack.within().threat.eps for share in self.shares})

    def _verifiers(self, part: Subject) -> list[Verifier]:
        return list(self.verifiers) if self.verifiers else [usual_verifier(part.model, part.x, part.task)]

    def ask(self, subject: Subject) -> Finding:
        """Attack and verify at each budget.

        Raises:
            UserError: for a network that cannot be bounded, naming its layer.
        """
        part = subject.subset(self.inputs)
        correct = ~part.task.is_adversarial(part.logits, part.y)
        attack = self.attack.within()
        verifiers, budgets = self._verifiers(part), self._budgets
        rows, crossings, verified, robust = list[dict[str, Any]](), list[dict[str, Any]](), correct, correct
        for eps in budgets:
            attacked = at_budget(attack, eps)
            robust = robust & ~part.attacked(attacked, search="first").outcome.success
            verified, by, seconds = self._verified(part, attacked, verifiers, verified, robust)
            crossings += [
                {"id": int(part.ids[i]), "eps": eps, "verifier": by[i], "attack": attack.label()}
                for i in (verified & ~robust).nonzero().squeeze(1).tolist()
            ]
            rows.append(
                {
                    "eps": eps,
                    "certified": accuracy(verified),
                    "attacked": accuracy(robust),
                    "by": {name: by.count(name) for name in dict.fromkeys(by) if name},
                    "seconds": seconds / len(part.y),
                }
            )
        data = {
            "inputs": len(part.y),
            "seed": part.seed,
            "interval": INTERVAL,
            "norm": attack.threat.norm,
            "threat": attack.threat.text(),
            "attack": attack.label(),
            "verifiers": [verifier.label() for verifier in verifiers],
            "sound": all(verifier.sound for verifier in verifiers),
            "clean": accuracy(correct),
            "curve": rows,
            "crossings": crossings,
        }
        severity: Severity = "bad" if crossings else "info"
        return Finding("certificates", f"Certificates ({attack.threat.norm})", _verdict(data), severity, data)

    def _verified(
        self, part: Subject, attack: Attack, verifiers: Sequence[Verifier], before: Tensor, robust: Tensor
    ) -> tuple[Tensor, list[str], float]:
        """Which of the inputs that were verified at the budget before are so here, by which verifier, and the seconds.

        The first verifier is asked about those that the attack succeeded on, too, so that both are held against each
        other; the others about what is open.
        """
        started = time.perf_counter()
        verified, by = torch.zeros_like(before), [""] * len(before)
        for place, verifier in enumerate(verifiers):
            open_ = before & ~verified & (robust if place else torch.ones_like(robust))
            rows = open_.nonzero().squeeze(1)
            if not len(rows):
                continue
            found = _certified(part, rows, attack, verifier)
            verified[rows] = found.verified
            for row in rows[found.verified].tolist():
                by[row] = verifier.label()
        return verified, by, time.perf_counter() - started


def _certified(part: Subject, rows: Tensor, attack: Attack, verifier: Verifier) -> Certificate:
    settings: dict[str, Any] = {"threat": attack.threat, "method": verifier, "task": part.task, "seed": part.seed}
    return certify(part.model, part.x[rows], part.y[rows], ids=part.ids[rows], **settings)


def _verdict(data: dict[str, Any]) -> str:
    last = data["curve"][-1]
    certified, attacked = last["certified"]["accuracy"], last["attacked"]["accuracy"]
    verifiers = " and ".join(data["verifiers"])
    if data["crossings"]:
        first = data["crossings"][0]
        count = len({row["id"] for row in data["crossings"]})
        return (
            f"{first['verifier']} certifies {count} inputs that {first['attack']} succeeds on, the first of them input "
            f"{first['id']} at eps {first['eps']:.4g}: one of the two is wrong, so trust neither and report the bug."
        )
    between = (
        f"robust accuracy is {certified:.1%}"
        if certified == attacked
        else f"robust accuracy is between {certified:.1%} and {attacked:.1%}"
    )
    return (
        f"At {data['threat']} {certified:.1%} of {data['inputs']} inputs are certified by {verifiers} and "
        f"{attacked:.1%} withstand {data['attack']}: {between}."
    )
