"""What remains when the attacker knows how the network is made?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from buttress.attacks import Attack
from buttress.attacks.composed.transfer import check_module
from buttress.attacks.composed.variant import variants_of
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.adaptive.ablations import ablated
from buttress.audits.adaptive.attack_list import REFERENCE, Effort, Entry, attacks_on
from buttress.audits.base.attack_label import describe
from buttress.audits.base.budget_sweep import Cost, cost, sweep
from buttress.audits.base.finding import Finding, Severity
from buttress.audits.base.statistics import INTERVAL, accuracy
from buttress.audits.base.subject import Audit, Subject, Timed, same_inputs
from buttress.audits.masking.checks.check import Trial
from buttress.audits.masking.checks.paired_attacks import compare
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.threat import NOT_GIVEN, Threat, budget_text

_LEVEL = 0.01  # of the test that the reference misses more than is tolerated
_SPREAD = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)  # budgets of the curve, as multiples of eps


@dataclass(frozen=True)
class Told:
    """What came of one attack: (N,) bool, the inputs it was asked about and those of them that it beats; its cost."""

    entry: Entry
    asked: Tensor
    success: Tensor
    spent: Cost
    reason: str = ""


@audit("adaptive")
@dataclass(frozen=True, kw_only=True)
class Adaptive(Audit):
    """Accuracy under the worst of many attacks, each made for a way in which a network can seem robust.

    After Tramer et al., "On Adaptive Attacks to Adversarial Example Defenses" (NeurIPS 2020), and Carlini et al., "On
    Evaluating Adversarial Robustness" (arXiv 1902.06705). The network itself is attacked by PGD with cross-entropy and
    with the margin, towards each other class, along gradients that are means over small noise, by random corners of the
    threat, by Square and by HopSkipJump (not in l1); examples are crafted as well on what the network offers for it
    (``attack_variants``, see `attacks.composed.variant.variants_of`) and on other networks, and shown to this one. An
    input stands only where it withstands them all. Beside that stands the figure of a usual attack, the reference, and
    what each attack beats that the reference does not, and that none of the others does. A curve over budgets must come
    down to 0; where a network offers ``ablations`` they are asked about the inputs and the reference's points.

    An attack that does not work on a network (without any gradient, say) is told with its reason and left out. A
    network that draws at random is judged by the mean of fresh passes at each attack's own points.

    Cost per input, with S steps, R restarts, V variants and surrogates, K other classes: at most 2 R S (1 + V) + K S +
    ``jitters`` S forwards and as many backwards, and ``corners`` + ``queries`` + ``decisions`` forwards, besides the
    reference and the curve (6 S). Inputs that fall are not asked about to the end.

    Args:
        threat: what the attacker may do, where ``attack`` is not given.
        attack: the reference; PGD-20 unless given.
        models: other networks to craft on, such as one trained likewise from another seed. In a job, runs' folders.
        steps: of each attack by gradients.
        restarts: of PGD with either loss, on the network, its variants and the other networks.
        targets: other classes that each input is led to, by APGD; all unless given, 0 for none.
        jitters: noisy copies of an input whose mean gradient is followed; 0 for none.
        jitter: standard deviation of that noise, as a share of eps.
        queries: of Square, for each input; 0 for none.
        decisions: of HopSkipJump, for each input; 0 for none.
        corners: random corners, for each input; 0 for none.
        corner_inputs: inputs that corners are tried on, spread evenly.
        cascade: attack only what stood so far; quicker, but the figures of single attacks are of different inputs.
        curve: whether to attack at budgets around eps and at the width of the box.
        inputs: at most so many, spread evenly over those of the audit.
        tolerated: share of the inputs that the reference may miss.
    """

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
            _whole(name, getattr(self, name), 1)
        for name in ("targets", "jitters", "queries", "decisions", "corners"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 0)
        if not 0 < self.jitter < math.inf:
            raise UserError(f"jitter must be a positive share of eps; got {self.jitter}")
        if not 0 < self.tolerated < 1:
            raise UserError(f"tolerated must be between 0 and 1; got {self.tolerated}")
        if isinstance(self.models, nn.Module | str):
            raise UserError("models must be a list of networks; got a single one")
        for i, model in enumerate(self.models):
            if not isinstance(model, str):
                check_module(f"models[{i}]", model)
        object.__setattr__(self, "models", tuple(self.models))

    @property
    def reference(self) -> Attack:
        """The attack that the worst case is set against."""
        return self.attack or PGD(threat=self.threat, steps=20)

    def ask(self, subject: Subject) -> Finding:
        """Attack in every way, the cheapest first.

        Raises:
            UserError: for a budget of 0 or without limit, a network that is only named (a job loads it), and where no
                attack runs.
        """
        reference, threat = self.reference, self.reference.threat
        if threat.eps == 0 or math.isinf(threat.eps):
            raise UserError(
                f"adaptive asks about one budget: give {describe(reference)} a finite eps; got {threat.eps}"
            )
        named = next((model for model in self.models if not isinstance(model, nn.Module)), None)
        if named is not None:
            raise UserError(f"models must be networks here; got {named!r}: load it first")
        count = len(subject.y)
        some = torch.linspace(0, count - 1, min(self.inputs, count), device=subject.y.device).round().long()
        about = replace(subject, x=subject.x[some], y=subject.y[some], ids=subject.ids[some], _logits=None)
        about.task.check(about.logits, about.y)
        trial = Trial(about, reference, _LEVEL, 0.0, self.tolerated, 1, 1)
        told, points = self._all(trial)
        if all(one.reason for one in told):
            raise UserError(f"no attack of adaptive ran: {told[0].reason.rstrip('.')}")
        data = self._data(trial, told)
        data["curve"], data["curve_label"], reason = self._curve(trial)
        data["ablations"] = ablated(about, points)
        data["not_run"] = [{"label": one.entry.label, "reason": one.reason} for one in told if one.reason]
        data["not_run"] += [{"label": "accuracy over budgets", "reason": reason}] if reason else []
        title = "What remains against an attacker who knows the network?"
        return Finding("adaptive", title, _sentence(data), _severity(data), data)

    def _all(self, trial: Trial) -> tuple[list[Told], Tensor | None]:
        """What came of each attack, and the points that the reference found."""
        about, told, points = trial.subject, list[Told](), None
        effort = Effort(**{name: getattr(self, name) for name in (f.name for f in fields(Effort))})
        surrogates = [model for model in self.models if isinstance(model, nn.Module)]
        standing, variants = trial.right, list(variants_of(about.model))
        for entry in attacks_on(about.logits.shape[1], variants, surrogates, self.reference, effort):
            asked = standing if self.cascade and entry.kind != REFERENCE else torch.ones_like(standing)
            if entry.inputs is not None:
                asked = asked & _spread_over(len(asked), entry.inputs, asked.device)
            found, timed = _run(trial, entry, asked)
            told.append(found)
            standing = standing & ~found.success
            if entry.kind == REFERENCE and timed is not None:
                points = timed.outcome.x_adv
        return told, points

    def _data(self, trial: Trial, told: Sequence[Told]) -> dict[str, Any]:
        about, right, threat = trial.subject, trial.right, self.reference.threat
        ran = [one for one in told if not one.reason]
        every = torch.stack([one.success for one in told])
        usual = right & ~every[0]
        stands = right & ~every.any(0)
        each = every.sum(0)
        found = compare(
            ("all together", stands),
            (told[0].entry.label, usual),
            level=_LEVEL,
            floor=0.0,
            tolerated=self.tolerated,
            effort=True,
        )
        rows = [
            {
                "name": registered_attacks.name_of(one.entry.attack),
                "label": one.entry.label,
                "kind": one.entry.kind,
                "inputs": int(one.asked.sum()),
                "beaten": int(one.success.sum()),
                "missed": int((one.success & usual).sum()),
                # In a cascade nobody else is asked about what fell.
                "alone": None if self.cascade else int((one.success & (each == 1)).sum()),
                "standing": accuracy(right & ~one.success) if bool(one.asked.all()) else None,
                **one.spent.each(len(right)),
            }
            for one in ran
        ]
        total = sum((one.spent for one in told), start=Cost())
        return {
            "attack": told[0].entry.label,
            "norm": threat.norm,
            "eps": threat.eps,
            "inputs": len(right),
            "seed": about.seed,
            "precision": about.precision,
            "interval": INTERVAL,
            "random": trial.random,
            "cascade": self.cascade,
            "tolerated": self.tolerated,
            "clean": accuracy(right),
            "reference": accuracy(usual) if not told[0].reason else None,
            "worst": accuracy(stands),
            "missed": found.plain(),
            "variants": list(variants_of(about.model)),
            "surrogates": len(self.models),
            "rows": rows,
            "total": total.each(len(right)),
            "same_inputs": same_inputs(about),
        }

    def _curve(self, trial: Trial) -> tuple[list[dict[str, Any]], str, str]:
        """Accuracy over budgets, under what, and why there is none."""
        threat = self.reference.threat
        attack = PGD(threat=threat, steps=self.steps, loss="margin")
        if not self.curve:
            return [], "", ""
        budgets = {threat.eps * share for share in _SPREAD}
        if threat.box is not None and threat.norm == "linf":
            width = threat.box[1] - threat.box[0]
            budgets = {eps for eps in budgets if eps < width} | {threat.eps, width}
        try:
            found = sweep(trial.subject, attack, [0.0, *sorted(budgets)], trial.right, reuse=True)
        except UserError as reason:
            return [], describe(attack), _capital(reason)
        return [{"eps": eps, **accuracy(one)} for eps, one in found.stands.items()], describe(attack), ""


def _run(trial: Trial, entry: Entry, asked: Tensor) -> tuple[Told, Timed | None]:
    """One attack on the inputs asked about."""
    about, none = trial.subject, torch.zeros_like(asked)
    rows = None if bool(asked.all()) else asked.nonzero().squeeze(1)
    if rows is not None and not len(rows):
        return Told(entry, asked, none, Cost()), None
    try:
        timed = about.attacked(entry.attack, search="full" if trial.random else "first", rows=rows)
    except UserError as reason:
        return Told(entry, none, none, Cost(), _capital(reason)), None
    index = slice(None) if rows is None else rows
    if trial.random:
        points = about.x.clone()
        points[index] = timed.outcome.x_adv
        success = asked & trial.right & ~trial.moved(points)
    else:
        success = none.clone()
        success[index] = timed.outcome.success
        success &= trial.right
    return Told(entry, asked, success, cost(timed)), timed


def _spread_over(count: int, most: int, device: torch.device) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.bool, device=device)
    chosen[torch.linspace(0, count - 1, min(most, count), device=device).round().long()] = True
    return chosen


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be a whole number of {least} or more; got {value!r}")


def _capital(reason: object) -> str:
    return f"{str(reason)[:1].upper()}{str(reason)[1:]}."


def _sentence(data: dict[str, Any]) -> str:
    worst, rows = data["worst"], data["rows"]
    at = f"at {data['norm']} eps {budget_text(data['eps'])}"
    told = (
        f"{worst['accuracy']:.1%} ({worst['low']:.1%} to {worst['high']:.1%}) of {data['inputs']} inputs stand {at} "
        f"under all of {len(rows)} attacks together"
    )
    if data["reference"] is None:
        told += f"; {data['attack']}, the usual one, does not work here"
    else:
        told += f", {data['reference']['accuracy']:.1%} under {data['attack']} alone"
    most = max(rows, key=lambda row: int(row["missed"]), default=None)
    if most is not None and most["missed"]:
        told += f"; what that misses falls most to {most['label']}: {most['missed']} inputs"
    left = data["curve"][-1] if data["curve"] else None
    if left is not None and left["accuracy"] > 0:
        told += f". Even at eps {budget_text(left['eps'])} {left['accuracy']:.1%} stand under {data['curve_label']}"
    spent = data["total"]
    told += f". Spent: {spent['forwards']:,.0f} forward and {spent['backwards']:,.0f} backward passes an input"
    return f"{told}; {len(data['not_run'])} not run." if data["not_run"] else f"{told}."


def _severity(data: dict[str, Any]) -> Severity:
    """Bad where the reference is shown to miss more than is tolerated, a warning where it does so by chance perhaps.

    A warning, too, where the curve does not come down to 0 at the width of the box, or the reference did not run.
    """
    if data["reference"] is None or data["missed"]["stronger"]:
        return "bad"
    wide = data["curve"] and data["norm"] == "linf" and data["curve"][-1]["accuracy"] > 0
    return "warning" if wide or data["missed"]["surplus"] > data["tolerated"] else "good"
