"""Can the robust accuracy be trusted: is the attack as successful as it could be, or do gradients mislead it?"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import nn

from buttress.attacks import Attack
from buttress.attacks.composed.transfer import check_network
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.audits.masking.checks import CHECKS, Check, CheckContext, Result
from buttress.audits.masking.checks.check import MEAN_PASSES, Kind
from buttress.audits.masking.checks.paired_attacks import least_gap
from buttress.audits.masking.checks.proposal import attack_settings
from buttress.engine.oracle import Search
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import audit
from buttress.threat import NOT_GIVEN, Threat, budget_text
from buttress.validation import number, whole

TRUSTWORTHY, SUSPECT, NOT = "trustworthy", "suspect", "not trustworthy"
_FEW = 8  # inputs on which it is seen, to say what is asked, whether the network is randomised
_SEVERITY: dict[str, Severity] = {TRUSTWORTHY: "good", SUSPECT: "warning", NOT: "bad"}


@audit("masking")
@dataclass(frozen=True, kw_only=True)
class Masking(Audit):
    """Checks of an attack's figure on one network, each with its numbers, and one verdict on all (trust audit).

    After Carlini et al., "On Evaluating Adversarial Robustness" (arXiv 1902.06705), and Athalye et al., "Obfuscated
    Gradients" (ICML 2018). Whatever compares attacks does so on the same inputs by exact one-sided tests, and asks for
    an effect as well as for significance. The level is shared by all tests of all checks (Bonferroni), so that a
    network whose attacks are as strong as they should be is called otherwise with a probability of at most ``level``.

    "trustworthy" when no check raised an alarm; "suspect" when gradients look as if they misled, or too few checks ran;
    "not trustworthy" when an attack is shown to be overlooked, or there is no gradient to go by. `Finding.next` is the
    attack to run then, and ``data["next"]`` describes it. The verdict is about the figure: a network that hides nothing
    may still be attacked by too few steps or the wrong loss. A check that means nothing here, or cannot run, is listed
    as such; ``data["checks_run"]`` counts the others. For "trustworthy" there must be one at least of gradient health
    (gradients, agreement, roughness), of more effort (more steps, more restarts, other loss), and without gradients
    (random points, black box). What is trustworthy also has ``data["least_gap"]``, the smallest lead of a stronger
    attack that so few ``inputs`` can show; with more of them it shrinks towards ``tolerated``.

    Where the attack replaces gradients of layers (`BPDA`), all that follows a gradient here follows the replaced one:
    the robust accuracy under an adaptive attack depends on the gradient that it used, not on the network's own.

    Args:
        threat: what the attacker may do, where ``attack`` is not given.
        attack: the attack whose figure is in question; PGD-20 unless given.
        surrogate: a network to transfer examples from; the check is left out without one. In a job, a run's folder.
        level: probability of a false alarm, over all checks.
        floor: surplus of an attack that should be weaker which counts, as a share of the inputs.
        tolerated: share of the inputs that more effort (steps, starts, another loss) may win; published figures of
            honest networks on CIFAR-10 are 3 to 5 points above AutoAttack's (Croce and Hein, ICML 2020).
        inputs: at most so many, spread evenly over those of the audit.
        queries: of the black-box attack, per input.
        draws: random points tried, per input.
    """

    topic: ClassVar[Topic] = "Whether the figures can be trusted"

    threat: Threat = NOT_GIVEN
    attack: Attack | None = None
    surrogate: nn.Module | str | None = None
    level: float = 0.01
    floor: float = 0.01
    tolerated: float = 0.05
    inputs: int = 200
    queries: int = 500
    draws: int = 100

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.surrogate is not None:
            check_network("surrogate", self.surrogate)
        for name in ("level", "floor", "tolerated"):
            number(name, getattr(self, name), "(0, 1)")
        if self.attack is not None and not isinstance(self.attack, Attack):
            raise UserError(f"masking questions an attack within a budget; got {self.attack!r}")
        for name in ("inputs", "queries", "draws"):
            whole(name, getattr(self, name))

    @property
    def audited(self) -> Attack:
        """The attack whose figure is in question."""
        return self.attack or PGD(threat=self.threat, steps=20)

    def work(self, subject: Subject) -> Work:
        """The attack in question, those of the checks, and the checks' own passes."""
        count, few = min(self.inputs, len(subject.y)), self.context(subject.subset(_FEW))
        verdicts = MEAN_PASSES if few.random else 0  # of a randomised network, at the points of each attack
        attacks, passes = [few.attack], PassCount(1 + verdicts, 1)
        for check in CHECKS:
            if check.needs_gradient and few.margin_gradients is None:
                continue
            with suppress(UserError):  # as where an attack needs a box: then the check does not run
                attacks += check.attacks(few)
                passes += check.passes(few)
        search: Search = "full" if few.random else "first"
        own = (passes + PassCount(verdicts * len(attacks))) * count
        return Work(asked(attacks, count, search), own)

    def ask(self, subject: Subject) -> Finding:
        """Run all checks, causes first.

        Raises:
            UserError: when the surrogate is a name: only a job knows how to load one.
        """
        if isinstance(self.surrogate, str):
            raise UserError(f"surrogate must be a network here; got {self.surrogate!r}: load it first")
        eps = self.audited.threat.eps
        if eps == 0 or (math.isinf(eps) and isinstance(self.audited.innermost, MinimumNorm)):
            raise UserError(
                f"masking is about robust accuracy at a budget: give {self.audited.label()} an eps; got {eps}"
            )
        context = self.context(subject)
        results = [(check, run_check(check, context)) for check in CHECKS]
        verdict, why, proposal = overall_verdict(results, context)
        data = {
            "verdict": verdict,
            "why": why,
            "attack": context.attack.label(),
            "norm": context.attack.threat.norm,
            "eps": context.attack.threat.eps,
            "inputs": context.count,
            "seed": subject.seed,
            "random": context.random,
            "clean": float(context.correct.double().mean()),
            "robust": float(context.robust.double().mean()) if not context.lacks_gradient else None,
            "tests": TESTS,
            "level": self.level,
            "level_of_each": context.level,
            "floor": self.floor,
            "tolerated": self.tolerated,
            "least_gap": least_gap(context.count, level=context.level, floor=self.floor, tolerated=self.tolerated),
            "checks_run": sum(result.verdict != "not run" for _, result in results),
            "checks": [_plain(check, result) for check, result in results],
            "next": None if proposal is None else attack_settings(proposal),
            "next_label": None if proposal is None else proposal.label(),
        }
        return Finding("masking", "Can the figure be trusted?", _sentence(data), _SEVERITY[verdict], data, proposal)

    def context(self, subject: Subject) -> CheckContext:
        """What the checks share, on ``inputs`` of the subject's inputs."""
        surrogate = self.surrogate if isinstance(self.surrogate, nn.Module) else None
        level = self.level / TESTS
        subset = subject.subset(self.inputs)
        return CheckContext(
            subset, self.audited, level, self.floor, self.tolerated, self.queries, self.draws, surrogate
        )


TESTS = sum(check.tests for check in CHECKS)


def run_check(check: Check, context: CheckContext) -> Result:
    """One check's result; "not run" where it means nothing for this network or this attack, with the reason."""
    if check.needs_gradient and context.margin_gradients is None:
        return Result("not run", "The network has no gradient.")
    try:
        return check.ask(context)
    except UserError as reason:
        return Result("not run", f"{str(reason)[:1].upper()}{str(reason)[1:]}.")


def overall_verdict(results: list[tuple[Check, Result]], context: CheckContext) -> tuple[str, str, Attack | None]:
    """The verdict, why, and what to run next: the first cause's proposal, else that of the largest consequence."""
    ranked = sorted(results, key=lambda pair: (not pair[0].cause, 0 if pair[0].cause else -pair[1].surplus))
    alarms = [result for _, result in ranked if result.verdict in ("warn", "fail")]
    proposal = next((result.next for result in alarms if result.next is not None), None)
    if alarms:
        verdict = NOT if any(result.verdict == "fail" for result in alarms) else SUSPECT
        return verdict, " ".join(result.reason for result in alarms), proposal
    needed, correct = math.ceil(-math.log2(context.level)), int(context.correct.sum())
    if correct < needed:
        return (
            SUSPECT,
            f"Only {correct} inputs are classified correctly: nothing can be shown on fewer than {needed}.",
            None,
        )
    ran = {check.kind for check, result in results if result.verdict != "not run"}
    missing = [kind for kind in get_args(Kind) if kind not in ran and kind != "other"]
    if missing:
        return SUSPECT, f"Too few checks ran: none of {' and none of '.join(missing)}.", None
    return TRUSTWORTHY, _no_alarm(results, context), None


def _no_alarm(results: list[tuple[Check, Result]], context: CheckContext) -> str:
    """That no check raised an alarm; and a larger gap than is tolerated, where so few inputs leave it to chance."""
    gaps = [c for _, result in results for c in result.comparisons if c.surplus > c.tolerated]
    if not gaps:
        return f"Nothing was found that {context.attack.label()} overlooks."
    most = max(gaps, key=lambda comparison: comparison.surplus)
    text = f"{most.challenger} succeeds on {most.surplus:.1%} more than {most.reference}"
    rest = f"which {most.inputs} inputs leave to chance: use more"
    return f"Nothing was shown that {context.attack.label()} overlooks; but {text}, {rest}."


def _undetectable(data: dict[str, Any]) -> str:
    """Which gap to an attack that tries harder no check could have shown, for so few inputs."""
    least, inputs = data["least_gap"], data["inputs"]
    if least is None:
        return f" No gap to a stronger attack can be shown with {inputs} inputs."
    return f" A gap of less than {100 * least:.1f} points to a stronger attack cannot be shown with {inputs} inputs."


def _plain(check: Check, result: Result) -> dict[str, Any]:
    return {
        "name": check.name,
        "question": check.question,
        "verdict": result.verdict,
        "reason": result.reason,
        "figures": result.figures,
        "comparisons": [comparison.plain() for comparison in result.comparisons],
        "next": None if result.next is None else result.next.label(),
    }


def _sentence(data: dict[str, Any]) -> str:
    at = f"{data['attack']} at {data['norm']} eps {budget_text(data['eps'])} on {data['inputs']} inputs"
    robust = "No robust accuracy" if data["robust"] is None else f"Robust accuracy {data['robust']:.1%}"
    first = data["why"].split(". ")[0].rstrip(".")
    ran = f"{data['checks_run']} of {len(data['checks'])} checks ran"
    text = f"{robust} under {at} is {data['verdict']} ({ran}). {first}."
    text += _undetectable(data) if data["verdict"] == TRUSTWORTHY else ""
    return text + (f" Run next: {data['next_label']}." if data["next_label"] else "")
