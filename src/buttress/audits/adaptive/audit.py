"""Robust accuracy against an attacker who knows how the network is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import nn

from buttress.attacks import Attack
from buttress.attacks.composed.transfer import check_network
from buttress.attacks.composed.variant import variants_of
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.adaptive.attack_list import Effort, Entry, attacks_on
from buttress.audits.adaptive.measurements import (
    AttackRun,
    ablation_rows,
    ablations_of,
    accuracy_curve,
    curve_budgets,
    run_all,
)
from buttress.audits.base.audit import Audit
from buttress.audits.base.budget_sweep import Cost
from buttress.audits.base.budget_sweep import runs as at_budgets
from buttress.audits.base.finding import Finding, Severity, Topic, most_serious
from buttress.audits.base.ranking import joined, ranking
from buttress.audits.base.rating import rate
from buttress.audits.base.statistics import INTERVAL, accuracy
from buttress.audits.base.subject import Subject, same_inputs
from buttress.audits.base.work import Asked, Work, asked
from buttress.audits.masking.checks.check import MEAN_PASSES, PASSES, CheckContext
from buttress.audits.masking.checks.paired_attacks import compare
from buttress.engine.oracle import Search
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.threat import NOT_GIVEN, Threat, budget_text
from buttress.validation import number, positive, whole

_FEW = 8  # inputs on which it is seen, to say what is asked, whether the network is randomised
_LEVEL = 0.01  # of the test that the reference misses more than is tolerated


@audit("adaptive")
@dataclass(frozen=True, kw_only=True)
class Adaptive(Audit):
    """Robust accuracy under the worst of many attacks, each for a way in which a network can seem robust.

    After Tramer et al., "On Adaptive Attacks to Adversarial Example Defenses" (NeurIPS 2020), and Carlini et al., "On
    Evaluating Adversarial Robustness" (arXiv 1902.06705). The network itself is attacked by PGD with cross-entropy and
    with the margin, towards each other class, along gradients that are means over small noise, by random corners of the
    threat, by Square and by HopSkipJump (not in l1); examples are crafted as well on what the network offers for it
    (``attack_variants``, see `attacks.composed.variant.variants_of`) and on other networks, and shown to this one. An
    input counts as robust only where none of them is successful. Beside that are reported the robust accuracy under a
    usual attack, the reference, and on how many inputs each attack alone is successful, and where the reference is not.
    A curve over budgets must come down to 0; a network's ``ablations`` are evaluated on the inputs and on the
    reference's points.

    An attack that does not work on a network (without any gradient, say) is listed with its reason and left out. A
    randomised network is evaluated by the mean of fresh passes at each attack's own points.

    Cost per input, with S steps, R restarts, V variants and surrogates, K other classes: at most 2 R S (1 + V) + K S +
    ``jitters`` S forwards and as many backwards, and ``corners`` + ``queries`` + ``decisions`` forwards, besides the
    reference and the curve (6 S). A search ends at the first success.

    Args:
        threat: what the attacker may do, where ``attack`` is not given.
        attack: the reference; PGD-20 unless given.
        models: other networks to craft on, such as one trained likewise from another seed. In a job, runs' folders.
        steps: of each attack by gradients.
        restarts: of PGD with either loss, on the network, its variants and the other networks.
        targets: other classes that each input is moved towards, by APGD; all unless given, 0 for none.
        jitters: noisy copies of an input whose mean gradient is followed; 0 for none.
        jitter: standard deviation of that noise, as a share of eps.
        queries: of Square, for each input; 0 for none.
        decisions: of HopSkipJump, for each input; 0 for none.
        corners: random corners, for each input; 0 for none.
        corner_inputs: inputs that corners are tried on, spread evenly.
        cascade: attack only inputs that are robust so far; quicker, but single attacks' figures are of other inputs.
        curve: whether to attack at budgets around eps and at the width of the box.
        inputs: at most so many, spread evenly over those of the audit.
        tolerated: share of the inputs that the reference may miss.
    """

    topic: ClassVar[Topic] = "How robust it is"

    threat: Threat = NOT_GIVEN
    attack: Attack | None = None
    models: Sequence[nn.Module | str] = ()
    steps: int = 100
    restarts: int = 5
    targets: int | None = None
    jitters: int = 20
    jitter: float = 0.25
    queries: int = 5000
    decisions: int = 5000
    corners: int = 10_000
    corner_inputs: int = 100
    cascade: bool = False
    curve: bool = True
    inputs: int = 200
    tolerated: float = 0.05

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.attack is not None and not isinstance(self.attack, Attack):
            raise UserError(f"adaptive needs an attack within a budget as reference; got {self.attack!r}")
        for name in ("steps", "restarts", "corner_inputs", "inputs"):
            whole(name, getattr(self, name))
        for name in ("targets", "jitters", "queries", "decisions", "corners"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 0)
        positive("jitter", self.jitter)
        number("tolerated", self.tolerated, "(0, 1)")
        if isinstance(self.models, nn.Module | str):
            raise UserError("models must be a list of networks; got a single one")
        for i, model in enumerate(self.models):
            check_network(f"models[{i}]", model)
        object.__setattr__(self, "models", tuple(self.models))

    @property
    def reference(self) -> Attack:
        """The attack that the worst case is set against."""
        return self.attack or PGD(threat=self.threat, steps=20)

    def work(self, subject: Subject) -> Work:
        """All attacks, and those of the curve; of a randomised network fresh passes at the points of each as well."""
        count, context = min(self.inputs, len(subject.y)), self._context(subject.subset(_FEW))
        entries, random = list(self._entries(context.subject)), context.random
        search: Search = "full" if random else "first"
        attacks = [Asked(entry.attack, min(count, entry.inputs or count), search) for entry in entries]
        curve = at_budgets(self._curve_attack, curve_budgets(self._curve_attack.threat)) if self.curve else []
        own = PassCount(2 + PASSES + (MEAN_PASSES * (1 + len(entries)) if random else 0)) * count
        ablations = PassCount(2 * len(ablations_of(subject.model)) * count)
        return Work((*attacks, *asked(curve, count, "first")), own + ablations)

    def ask(self, subject: Subject) -> Finding:
        """Attack in every way, the cheapest first.

        Raises:
            UserError: for a budget of 0 or without limit, a network that is only named (a job loads it), and where no
                attack runs.
        """
        reference, threat = self.reference, self.reference.threat
        if threat.eps == 0 or math.isinf(threat.eps):
            raise UserError(f"adaptive is about one budget: give {reference.label()} a finite eps; got {threat.eps}")
        named = next((model for model in self.models if not isinstance(model, nn.Module)), None)
        if named is not None:
            raise UserError(f"models must be networks here; got {named!r}: load it first")
        subset = subject.subset(self.inputs)
        context = self._context(subset)
        runs, points = run_all(context, self._entries(subset), cascade=self.cascade)
        if all(run.reason for run in runs):
            raise UserError(f"no attack of adaptive ran: {runs[0].reason.rstrip('.')}")
        data = self._data(context, runs)
        attack = self._curve_attack
        data["curve"], reason = accuracy_curve(context, attack) if self.curve else ([], "")
        data["curve_label"] = attack.label() if self.curve else ""
        data["ablations"] = ablation_rows(subset, points)
        data["not_run"] = [{"label": run.entry.label, "reason": run.reason} for run in runs if run.reason]
        data["not_run"] += [{"label": "accuracy over budgets", "reason": reason}] if reason else []
        title = "Robust accuracy against an attacker who knows the network"
        return Finding("adaptive", title, _sentence(data), _severity(data), data)

    def _context(self, subject: Subject) -> CheckContext:
        return CheckContext(subject, self.reference, _LEVEL, 0.0, self.tolerated, 1, 1)

    def _entries(self, subject: Subject) -> Iterator[Entry]:
        effort = Effort(**{name: getattr(self, name) for name in (f.name for f in fields(Effort))})
        surrogates = [model for model in self.models if isinstance(model, nn.Module)]
        variants = list(variants_of(subject.model))
        return attacks_on(subject.logits.shape[1], variants, surrogates, self.reference, effort)

    @property
    def _curve_attack(self) -> Attack:
        return PGD(threat=self.reference.threat, steps=self.steps, loss="margin")

    def _data(self, context: CheckContext, runs: Sequence[AttackRun]) -> dict[str, Any]:
        subset, correct, threat = context.subject, context.correct, self.reference.threat
        success = torch.stack([run.success for run in runs])
        usual = correct & ~success[0]
        robust = correct & ~success.any(0)
        successes = success.sum(0)
        comparison = compare(
            ("all together", robust),
            (runs[0].entry.label, usual),
            level=_LEVEL,
            floor=0.0,
            tolerated=self.tolerated,
            effort=True,
        )
        rows = [
            {
                "name": registered_attacks.name_of(run.entry.attack),
                "label": run.entry.label,
                "kind": run.entry.kind,
                "inputs": int(run.attacked.sum()),
                "beaten": int(run.success.sum()),
                "missed": int((run.success & usual).sum()),
                # In a cascade an input is given to no other attack after a success.
                "alone": None if self.cascade else int((run.success & (successes == 1)).sum()),
                "standing": accuracy(correct & ~run.success) if bool(run.attacked.all()) else None,
                **run.cost.each(len(correct)),
            }
            for run in runs
            if not run.reason
        ]
        total = sum((run.cost for run in runs), start=Cost())
        ran = [run for run in runs if not run.reason]
        # In a cascade they were not run on the same inputs.
        missed = ranking(torch.stack([(run.success & usual).double() for run in ran]), subset.seed)
        most = [] if self.cascade else [ran[k].entry.label for k in missed.tied()]
        return {
            "attack": runs[0].entry.label,
            "norm": threat.norm,
            "eps": threat.eps,
            "threat": threat.text(),
            "inputs": len(correct),
            "seed": subset.seed,
            "precision": subset.precision,
            "interval": INTERVAL,
            "random": context.random,
            "cascade": self.cascade,
            "tolerated": self.tolerated,
            "chance": subset.chance,
            "clean": accuracy(correct),
            "reference": accuracy(usual) if not runs[0].reason else None,
            "worst": accuracy(robust),
            "missed": comparison.plain(),
            "most_missed": most,
            "variants": list(variants_of(subset.model)),
            "surrogates": len(self.models),
            "rows": rows,
            "total": total.each(len(correct)),
            "same_inputs": same_inputs(subset),
        }


def _sentence(data: dict[str, Any]) -> str:
    worst, rows = data["worst"], data["rows"]
    at = f"at {data['threat']}"
    text = (
        f"Robust accuracy on {data['inputs']} inputs {at} is {worst['accuracy']:.1%} ({worst['low']:.1%} to "
        f"{worst['high']:.1%}) under all of {len(rows)} attacks together"
    )
    if data["reference"] is None:
        text += f"; {data['attack']}, the usual one, does not work here"
    else:
        text += f", {data['reference']['accuracy']:.1%} under {data['attack']} alone"
    most = max(rows, key=lambda row: int(row["missed"]), default=None)
    if most is not None and most["missed"]:
        text += f"; of what that misses {most['label']} finds most: {most['missed']} inputs"
        if others := [name for name in data["most_missed"] if name != most["label"]]:
            text += f" ({joined(others)} cannot be told from it)"
    last = data["curve"][-1] if data["curve"] else None
    if last is not None and last["accuracy"] > 0:
        text += f". Even at eps {budget_text(last['eps'])} it is {last['accuracy']:.1%} under {data['curve_label']}"
    spent = data["total"]
    text += f". Spent: {spent['forwards']:,.0f} forward and {spent['backwards']:,.0f} backward passes an input"
    return f"{text}; {len(data['not_run'])} not run." if data["not_run"] else f"{text}."


def _severity(data: dict[str, Any]) -> Severity:
    """The rating of the worst case, and whether its figure can be had more cheaply.

    Bad where the reference did not run or is shown to miss more than is tolerated, a warning where it does so by chance
    perhaps, and where the curve does not come down to 0 at the width of the box.
    """
    if data["reference"] is None or data["missed"]["stronger"]:
        return "bad"
    wide = data["curve"] and data["norm"] == "linf" and data["curve"][-1]["accuracy"] > 0
    trust: Severity = "warning" if wide or data["missed"]["surplus"] > data["tolerated"] else "good"
    return most_serious(trust, rate(data["clean"], data["worst"], data["chance"]))
