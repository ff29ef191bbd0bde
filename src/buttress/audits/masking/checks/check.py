"""What all checks share: the network and the attack in question, comparisons of attacks, and the form of a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from buttress.attacks import Attack, AttackResult
from buttress.attacks.composed.bpda import BPDA
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.subject import Subject
from buttress.audits.masking.checks.paired_attacks import Comparison, compare
from buttress.audits.masking.checks.raw_gradients import MarginGradients, margin_gradients
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.models import forward_checked
from buttress.random import Random, derive
from buttress.threat import NOT_GIVEN, Threat

Verdict = Literal["pass", "warn", "fail", "not run"]
Kind = Literal["gradient health", "more effort", "gradient-free", "other"]
PASSES = 5  # passes in which the outputs must be the same (AutoAttack's flag of randomised defences)
_SPREAD = 1e-4  # largest distance of their outputs, each of length 1, that rounding explains (likewise)
MEAN_PASSES = 32  # fresh passes whose mean output decides on an input of a randomised network


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes:
        verdict: "pass"; "warn" where the network looks as if gradients misled; "fail" where the attack is shown to
            overlook something, or has no gradient to go by; "not run" with the reason.
        reason: one sentence.
        figures: numbers by name.
        comparisons: of attacks on the same inputs.
        next: the attack to run next, where there is reason for one.
    """

    verdict: Verdict
    reason: str
    figures: dict[str, float] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    next: Attack | None = None

    @property
    def surplus(self) -> float:
        """The share of inputs by which some attack is shown to be stronger; 0 where none is."""
        return max((pair.surplus for pair in self.comparisons if pair.stronger), default=0.0)


@dataclass
class CheckContext:
    """A network, the attack whose robust accuracy is in question, and what the checks need besides.

    Attributes:
        subject: the network and the inputs of the audit.
        attack: the attack.
        level: significance level of each test, corrected for their number.
        floor: surplus of a weaker attack that counts, as a share of the inputs.
        tolerated: share of the inputs that more effort may win.
        queries: of black-box attacks, per input.
        draws: random points tried per input.
        surrogate: a network to transfer from.
    """

    subject: Subject
    attack: Attack
    level: float
    floor: float
    tolerated: float
    queries: int
    draws: int
    surrogate: nn.Module | None = None

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.subject.y)

    @cached_property
    def outputs(self) -> Tensor:
        """(passes, N, C) the outputs for the same inputs in several passes."""
        return self._outputs(self.subject.x, PASSES)

    @cached_property
    def spread(self) -> float:
        """The largest distance between outputs for one input, each scaled to length 1."""
        unit = self.outputs / self.outputs.norm(dim=2, keepdim=True).clamp(min=1e-30)
        return float((unit - unit[:1]).norm(dim=2).max())

    @cached_property
    def random(self) -> bool:
        """Whether the network is randomised: outputs for the same input differ."""
        verdicts = self.outputs.argmax(2)
        return self.spread > _SPREAD or bool((verdicts != verdicts[:1]).any())

    @cached_property
    def margin_gradients(self) -> MarginGradients | None:
        """The margin and its gradient at the inputs; None where there is no gradient at all."""
        return self.gradients_at(self.subject.x)

    def gradients_at(self, x: Tensor) -> MarginGradients | None:
        """The same at (N, ...) points: as the attack in question sees them, where it replaces gradients (`BPDA`)."""
        measured: list[MarginGradients | None] = []
        subject, threat = self.subject, self.attack.threat
        core = _ProbeAttack(threat=threat, work=lambda: measured.append(margin_gradients(subject, x)))
        probe = self.with_replaced_gradients(core)
        probe.craft(subject.model, subject.x, subject.y, task=subject.task, seed=subject.seed, ids=subject.ids)
        return measured[0]

    def with_replaced_gradients(self, core: Attack) -> Attack:
        """``core`` with the gradients replaced that the attack in question replaces."""
        return through(self.attack, core)

    @cached_property
    def correct(self) -> Tensor:
        """(N,) bool, the inputs classified correctly."""
        return ~self._is_adversarial(self.subject.x)

    @cached_property
    def gradient_free(self) -> bool:
        """Whether the attack in question uses no gradient."""
        try:
            return not bool(self._attacked(self.attack).backwards.any())
        except UserError:
            return False

    @property
    def lacks_gradient(self) -> bool:
        """Whether the attack in question needs a gradient, and there is none."""
        return self.margin_gradients is None and not self.gradient_free

    @cached_property
    def robust(self) -> Tensor:
        """(N,) bool, robust under the attack in question; all correct ones where that cannot run."""
        return self.correct if self.lacks_gradient else self.robust_under(self.attack)

    def robust_under(self, attack: Attack) -> Tensor:
        """(N,) bool, the inputs that are classified correctly under ``attack``.

        A randomised network is evaluated by the mean of fresh passes at the attack's own points: one lucky pass during
        the search, or an unlucky one at the end, proves nothing.
        """
        if self.random:
            return self.correct & ~self._is_adversarial(self._attacked(attack).x_adv)
        return self.correct & ~self._attacked(attack).success

    def robust_at(self, x_adv: Tensor) -> Tensor:
        """(N,) bool, the inputs that are classified correctly at their own and at these points."""
        return self.correct & ~self._is_adversarial(x_adv)

    def compare(
        self, challenger: Attack, reference: Attack | None = None, *, floor: float | None = None, effort: bool = False
    ) -> Comparison:
        """An attack against another, the one in question unless given."""
        reference_attack = self.attack if reference is None else reference
        return self.compare_robust(
            (challenger.label(), self.robust_under(challenger)),
            (reference_attack.label(), self.robust if reference is None else self.robust_under(reference_attack)),
            floor=floor,
            effort=effort,
        )

    def compare_robust(
        self,
        challenger: tuple[str, Tensor],
        reference: tuple[str, Tensor] | None = None,
        *,
        floor: float | None = None,
        effort: bool = False,
    ) -> Comparison:
        """Compare robust inputs under two attacks, at this audit's level, floor and tolerance."""
        return compare(
            challenger,
            (self.attack.label(), self.robust) if reference is None else reference,
            level=self.level,
            floor=self.floor if floor is None else floor,
            tolerated=self.tolerated,
            effort=effort,
        )

    def varied(self, **changes: Any) -> Attack:
        """The attack with other settings; PGD with them where it has no such settings."""
        return varied(self.attack, changes, self.steps)

    @property
    def steps(self) -> int:
        """Gradient steps of the attack; 20 where it has another notion of them or takes one."""
        return int(self.attack.innermost.settings().get("steps", 20))

    def _attacked(self, attack: Attack) -> AttackResult:
        return self.subject.attacked(attack, search="full" if self.random else "first").outcome

    def _is_adversarial(self, x: Tensor) -> Tensor:
        """(N,) bool, misclassified at these points; by the mean output of several passes where it is randomised."""
        task = self.subject.task
        output = task.mean(list(self._outputs(x, MEAN_PASSES))) if self.random else self.subject.output(x)
        return task.is_adversarial(output, self.subject.y)

    def _outputs(self, x: Tensor, passes: int) -> Tensor:
        subject = self.subject
        seed = derive(subject.seed, "masking")
        with preserved(subject.model, "eval", seed, x.device), torch.no_grad():
            several = [
                torch.cat(
                    [subject.task.read(forward_checked(subject.model, p)) for p in torch.split(x, subject.batch_size)]
                )
                for _ in range(passes)
            ]
        return torch.stack(several)


@dataclass(frozen=True, kw_only=True)
class _ProbeAttack(Attack):
    """Moves nothing; calls a function where an attack would search."""

    work: Callable[[], None]
    threat: Threat = NOT_GIVEN

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs."""
        self.work()
        return x


def through(attack: Attack, core: Attack) -> Attack:
    """``core`` inside every `BPDA` that stands in an attack on the network itself."""
    if attack.inner is None or isinstance(attack, Transfer):
        return core
    held = through(attack.inner, core)
    return replace(attack, attack=held) if isinstance(attack, BPDA) else held


def varied(attack: Attack, changes: Mapping[str, Any], steps: int) -> Attack:
    """An attack with other settings, those of the attack inside where it holds one.

    Where it has no such settings, PGD with them, with the attack's own loss, and with what else means the same in both:
    has the same name and the same default.
    """
    core = attack.innermost
    settings, defaults, usual = core.settings(), core.defaults(), PGD().defaults()
    if changes.keys() <= settings.keys():
        return attack.varied(**changes)
    same = {
        name: settings[name] for name in usual if name in defaults and (name == "loss" or defaults[name] == usual[name])
    }
    return attack.with_innermost(PGD(**{**same, "threat": core.threat, "steps": steps, **changes}))


class Check(ABC):
    """One question about a network and the attack in question.

    Attributes:
        name: short, as in the report.
        question: in a few words.
        kind: what it contributes; a verdict of "trustworthy" needs one that ran of each kind but "other".
        cause: whether it looks for what misleads gradients, rather than for the consequence.
        tests: number of significance tests; they share the level of the audit.
        needs_gradient: whether it means nothing for a network without one.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    kind: ClassVar[Kind] = "other"
    cause: ClassVar[bool] = False
    tests: ClassVar[int] = 0
    needs_gradient: ClassVar[bool] = True

    def attacks(self, context: CheckContext) -> Sequence[Attack]:
        """The attacks that it runs beside the one in question."""
        return ()

    def passes(self, context: CheckContext) -> PassCount:
        """Its own passes for an input at most, those of attacks that the audit shares left out."""
        return PassCount()

    @abstractmethod
    def ask(self, context: CheckContext) -> Result:
        """Measure, give a verdict, and propose what to run next."""
