"""How long audits take: the passes that each says it makes, times a few timed passes of this network here."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Audit, Subject
from buttress.audits.base.work import Asked, Work
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.jobs.duration import duration
from buttress.jobs.pace import Pace
from buttress.threat import Threat

Key = tuple[str, str, int]  # of an attack that has been run, see `Asked.key`
_EARLY = 0.2  # share of a search that ends at its first success which an input takes that does not resist
_TRIED, _STEPS = 64, 10  # inputs that are attacked for a first look at how many resist; steps of that attack
_SLOW = 0.5  # seconds of a batch there and back, beside which what is between passes is nothing
_TRIAL = 5.0  # seconds that it may take; of a slower network every input counts as if it resisted


@dataclass(frozen=True)
class Estimate:
    """An audit, and the seconds that it takes; None where that is not known."""

    question: Audit
    seconds: float | None


@dataclass(frozen=True)
class _Parts:
    """Seconds of each attack that an audit asks for, None where that is not known, and of its own passes."""

    attacks: Mapping[Key, float | None]
    own: float


class AuditTimes:
    """Estimates for the audits of one network.

    What an attack computes between passes is taken to be what PGD does; what else an audit computes is not counted.
    Attacks over another network, such as a surrogate, count as if
    over this one.

    Args:
        subject: the network and its inputs.
        threat: of an attack that finds out how many inputs resist; without one all count as if they did.
    """

    def __init__(self, subject: Subject, threat: Threat | None = None) -> None:
        self._subject, self._threat = subject, threat
        self._known: dict[int, tuple[Audit, _Parts | None]] = {}

    @cached_property
    def pace(self) -> Pace:
        """Of a batch of the inputs."""
        subject, rows = self._subject, slice(self._batch)
        return Pace.of(subject.model, subject.x[rows], subject.y[rows], subject.task)

    @cached_property
    def resisting(self) -> float:
        """The share of the inputs that are right, and still so after a few steps of PGD; 1 where that was not tried."""
        attack = PGD(threat=self._threat, steps=_STEPS) if self._threat is not None else None
        passes = None if attack is None else attack.most_passes(self.pace.outputs)
        if attack is None or passes is None or self._of_passes(passes * _TRIED) > _TRIAL:
            return 1.0
        few = self._subject.subset(_TRIED)
        try:
            outcome = attack(few.model, few.x, few.y, task=few.task, seed=few.seed, ids=few.ids, search="first")
        except UserError:  # no gradient, or a threat that needs another attack
            return 1.0
        return float((~outcome.success).double().mean())

    @cached_property
    def between(self) -> float:
        """Seconds that an attack computes between two passes of a batch, by a short PGD; 0 where that was not timed."""
        pace, subject = self.pace, self._subject
        if self._threat is None or pace.forward + pace.backward > _SLOW:
            return 0.0
        attack = PGD(threat=self._threat, steps=_STEPS)
        rows = slice(subject.batch_size)
        start = time.perf_counter()
        try:
            attack(subject.model, subject.x[rows], subject.y[rows], task=subject.task, ids=subject.ids[rows])
        except UserError:  # no gradient, or a threat that needs another attack
            return 0.0
        seconds, passes = time.perf_counter() - start, attack.most_passes(pace.outputs) or PassCount(1)
        return max(0.0, seconds - pace.seconds(passes)) / passes.forwards

    def seconds(self, question: Audit, done: Collection[Key] = ()) -> float | None:
        """Of one audit, without attacks that were run for others; None where it or an attack does not say."""
        parts = self._of(question)
        if parts is None:
            return None
        new = [seconds for key, seconds in parts.attacks.items() if key not in done]
        known = [seconds for seconds in new if seconds is not None]
        return None if len(known) < len(new) else parts.own + sum(known)

    def keys(self, question: Audit) -> set[Key]:
        """The attacks that others find done after it."""
        parts = self._of(question)
        return set() if parts is None else set(parts.attacks)

    def cheapest(self, questions: Sequence[Audit], done: Collection[Key] = ()) -> Estimate:
        """The audit that takes least, one of unknown time only where there are no others."""
        estimates = [Estimate(question, self.seconds(question, done)) for question in questions]
        return min(estimates, key=lambda one: math.inf if one.seconds is None else one.seconds)

    def cheapest_first(self, questions: Sequence[Audit]) -> list[Estimate]:
        """Each in its turn with its time: always the one that takes least after those before; unknown times last."""
        waiting, done, order = list(questions), set[Key](), list[Estimate]()
        while waiting:
            order.append(self.cheapest(waiting, done))
            waiting = [question for question in waiting if question is not order[-1].question]
            done |= self.keys(order[-1].question)
        return order

    def text(self, questions: Sequence[Audit]) -> str:
        """A sentence on all of them."""
        order = self.cheapest_first(questions)
        known = [(one.question.label(), one.seconds) for one in order if one.seconds is not None]
        silent = dict.fromkeys(one.question.label() for one in order if one.seconds is None)
        parts = []
        if known:
            total = duration(sum(seconds for _, seconds in known))
            each = ", ".join(f"{label} {duration(seconds)}" for label, seconds in known)
            count = f"{len(known)} audit{'s' * (len(known) != 1)}"
            parts.append(f"about {total} for {count}, cheapest first: {each} ({self.rests_on()})")
        if silent:
            parts.append(f"not known: {', '.join(silent)}, which do not say how many passes they make")
        return "; ".join(parts)

    def rests_on(self) -> str:
        """What the figures were reckoned from, in words."""
        forward, backward = (1000 * self._of_passes(PassCount(*one)) for one in ((1, 0), (0, 1)))
        share = self.resisting
        held = "every input taken to resist" if share == 1 else f"{share:.0%} of the inputs taken to resist"
        return (
            f"timed passes of {forward:.2g} ms an input forward and {backward:.2g} ms backward, {held}, an attack for "
            "several audits counted once, statistics and drawing not counted"
        )

    def _of(self, question: Audit) -> _Parts | None:
        """What the audit says that it does, in seconds; asked once."""
        if id(question) not in self._known:
            work = question.work(self._subject)
            parts = None if work is None else self._parts(work)
            self._known[id(question)] = question, parts  # the question is held, so that its id stays its own
        return self._known[id(question)][1]

    def _parts(self, work: Work) -> _Parts:
        by_key = {asked.key: asked for asked in work.attacks}
        return _Parts(
            {key: self._of_attack(asked) for key, asked in by_key.items()}, self._of_passes(work.passes) + work.seconds
        )

    def _of_attack(self, asked: Asked) -> float | None:
        most = asked.attack.most_passes(self.pace.outputs)
        if most is None:
            return None
        share = self.resisting + (1 - self.resisting) * _EARLY if asked.search == "first" else 1.0
        batches = asked.inputs / self._batch
        return (self._of_passes(most * asked.inputs) + self.between * most.forwards * batches) * share

    def _of_passes(self, passes: PassCount) -> float:
        """Seconds of so many passes of one input each, in batches."""
        return self.pace.seconds(passes) / self._batch

    @property
    def _batch(self) -> int:
        return min(self._subject.batch_size, len(self._subject.y))
