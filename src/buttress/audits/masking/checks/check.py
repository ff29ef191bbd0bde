"""What all checks share: the network on trial, its attacks compared, and the form of an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from buttress.attacks import Attack, AttackResult
from buttress.attacks.composed.bpda import BPDA
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.attack_label import describe
from buttress.audits.base.subject import Subject
from buttress.audits.masking.checks.paired_attacks import Comparison, compare
from buttress.audits.masking.checks.raw_gradients import Slopes, slopes
from buttress.engine.oracle import Oracle
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.models import forward_checked
from buttress.random import Random, derive
from buttress.threat import NOT_GIVEN, Threat

Verdict = Literal["pass", "warn", "fail", "not run"]
Kind = Literal["gradient health", "more effort", "gradient-free", "other"]
_REPEATS = 5  # passes in which a network must answer the same (AutoAttack's flag of randomised defences)
_SPREAD = 1e-4  # largest distance of their outputs, each of length 1, that rounding explains (likewise)
_JUDGES = 32  # fresh passes whose mean judges an input of a randomised network


@dataclass(frozen=True)
class Result:
    """The answer of one check.

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
class Trial:
    """A network, the attack whose figure is in question, and what the checks need to question it.

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
        """(passes, N, C) what the network answers when it is asked the same several times."""
        return self._answers(self.subject.x, _REPEATS)

    @cached_property
    def spread(self) -> float:
        """The largest distance between answers to one input, each scaled to length 1."""
        unit = self.outputs / self.outputs.norm(dim=2, keepdim=True).clamp(min=1e-30)
        return float((unit - unit[:1]).norm(dim=2).max())

    @cached_property
    def random(self) -> bool:
        """Whether the network draws at random: answers to the same input differ."""
        verdicts = self.outputs.argmax(2)
        return self.spread > _SPREAD or bool((verdicts != verdicts[:1]).any())

    @cached_property
    def slopes(self) -> Slopes | None:
        """The margin and its gradient at the inputs; None where there is no gradient at all."""
        return self.slopes_at(self.subject.x)

    def slopes_at(self, x: Tensor) -> Slopes | None:
        """The same at (N, ...) points: as the attack in question sees them, where it replaces gradients (`BPDA`)."""
        found: list[Slopes | None] = []
        about, threat = self.subject, self.attack.threat
        measured = _Measured(threat=threat, work=lambda: found.append(slopes(about, x)))
        self.through(measured).craft(about.model, about.x, about.y, task=about.task, seed=about.seed, ids=about.ids)
        return found[0]

    def through(self, core: Attack) -> Attack:
        """``core`` with the gradients replaced that the attack in question replaces."""
        return through(self.attack, core)

    @cached_property
    def right(self) -> Tensor:
        """(N,) bool, the inputs classified correctly."""
        return ~self._judge(self.subject.x)

    @cached_property
    def blind(self) -> bool:
        """Whether the attack in question asks for no gradient."""
        try:
            return not bool(self._attacked(self.attack).backwards.any())
        except UserError:
            return False

    @property
    def lost(self) -> bool:
        """Whether the attack in question asks for a gradient, and there is none."""
        return self.slopes is None and not self.blind

    @cached_property
    def stands(self) -> Tensor:
        """(N,) bool, the inputs that stand under the attack in question; all right ones where that cannot run."""
        return self.right if self.lost else self.under(self.attack)

    def under(self, attack: Attack) -> Tensor:
        """(N,) bool, the inputs that are right and stand under ``attack``.

        A randomised network is judged by the mean of fresh passes at the attack's own points: one lucky pass during
        the search, or an unlucky one at the end, proves nothing.
        """
        if self.random:
            return self.right & ~self._judge(self._attacked(attack).x_adv)
        return self.right & ~self._attacked(attack).success

    def moved(self, x_adv: Tensor) -> Tensor:
        """(N,) bool, the inputs that are right and stand at these points."""
        return self.right & ~self._judge(x_adv)

    def compare(
        self, challenger: Attack, reference: Attack | None = None, *, floor: float | None = None, effort: bool = False
    ) -> Comparison:
        """An attack against another, the one in question unless given."""
        other = self.attack if reference is None else reference
        return self.judge(
            (describe(challenger), self.under(challenger)),
            (describe(other), self.stands if reference is None else self.under(other)),
            floor=floor,
            effort=effort,
        )

    def judge(
        self,
        challenger: tuple[str, Tensor],
        reference: tuple[str, Tensor] | None = None,
        *,
        floor: float | None = None,
        effort: bool = False,
    ) -> Comparison:
        """Compare which inputs stand, at this trial's level, floor and tolerance."""
        return compare(
            challenger,
            (describe(self.attack), self.stands) if reference is None else reference,
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

    def _judge(self, x: Tensor) -> Tensor:
        """(N,) bool, beaten at these points by the network's answer, or by the mean answer of one that draws."""
        output = self.subject.output(x) if not self.random else self.subject.task.mean(list(self._answers(x, _JUDGES)))
        return self.subject.task.is_adversarial(output, self.subject.y)

    def _answers(self, x: Tensor, passes: int) -> Tensor:
        about = self.subject
        seed = derive(about.seed, "masking")
        with preserved(about.model, "eval", seed, x.device), torch.no_grad():
            several = [
                torch.cat([about.task.read(forward_checked(about.model, p)) for p in torch.split(x, about.batch_size)])
                for _ in range(passes)
            ]
        return torch.stack(several)


@dataclass(frozen=True, kw_only=True)
class _Measured(Attack):
    """Moves nothing; does some work where an attack would search."""

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
    """One question to a network on trial.

    Attributes:
        name: short, as in the report.
        question: what is asked, in a few words.
        kind: what it contributes; a verdict of "trustworthy" needs one that ran of each kind but "other".
        cause: whether it looks for what misleads gradients, rather than for the consequence.
        tests: significance tests made; they share the level of the audit.
        needs_gradient: whether it means nothing for a network without one.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    kind: ClassVar[Kind] = "other"
    cause: ClassVar[bool] = False
    tests: ClassVar[int] = 0
    needs_gradient: ClassVar[bool] = True

    @abstractmethod
    def ask(self, trial: Trial) -> Result:
        """Measure, judge, and say what to do next."""
