"""Which audits are asked within a time, in which order, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from buttress.audits import Audit, Finding, Subject
from buttress.audits.base.audit import put
from buttress.errors import UserError
from buttress.jobs.audit_times import AuditTimes, Key
from buttress.jobs.duration import duration
from buttress.jobs.every_audit import LeftOut
from buttress.processes import on_first_process

KIND, _TITLE = "plan", "What was asked, and what was not"
_FAR, _LONG = (
    2.0,
    10.0,
)  # times its estimate, and seconds beyond it, from which on an audit is said to have taken longer
_MOMENTS = 10.0  # seconds of estimates, from which on what was seen corrects those of the rest
Place = tuple[int, float | None]  # an audit's place in the list, and its estimate


@dataclass(frozen=True)
class Choice:
    """What is asked, in this order, and what is left out, since it would take too long or an unknown time."""

    chosen: tuple[Place, ...]
    over: tuple[Place, ...]


def choose(
    times: AuditTimes,
    questions: Sequence[Audit],
    tiers: Sequence[Collection[int]],
    done: Collection[Key] = (),
    left: float | None = None,
    pace: float = 1.0,
) -> Choice:
    """Choose audits by their worth, and among those of one worth the cheapest first, so that most are answered.

    Args:
        times: what each takes.
        questions: all of them.
        tiers: their places in that list, those of the most worth first.
        done: attacks that were run before.
        left: seconds that there are; without a limit all are chosen, the cheapest first.
        pace: how many times their estimate audits have been seen to take.
    """
    chosen, over, run, spent = list[Place](), list[Place](), set(done), 0.0
    for places in tiers if left is not None else [[index for tier in tiers for index in tier]]:
        waiting = {id(questions[index]): index for index in places}
        while waiting:
            one = times.cheapest([questions[index] for index in waiting.values()], run)
            seconds = None if one.seconds is None else pace * one.seconds
            place = waiting.pop(id(one.question)), seconds
            if left is None or (seconds is not None and spent + seconds <= left):
                chosen.append(place)
                run |= times.keys(one.question)
                spent += seconds or 0.0
            else:
                over.append(place)
    return Choice(tuple(chosen), tuple(over))


def tiers(questions: Sequence[Audit], named: Sequence[Audit], usual: Sequence[Audit]) -> list[list[int]]:
    """The places of audits by their worth: those that the user named, the usual ones, and others."""
    worth = [
        0 if any(question is one for one in named) else 1 if any(question is one for one in usual) else 2
        for question in questions
    ]
    return [[index for index, each in enumerate(worth) if each == tier] for tier in range(3)]


@dataclass
class AuditPlan:
    """Audits of one network, in the order in which they are asked, within a time if there is a limit.

    Attributes:
        questions: those that can be asked.
        tiers: their places in ``questions``, those of the most worth first.
        times: estimates.
        left_out: audits that cannot be asked.
        budget: seconds for all of them; no limit without.
        line: receives a sentence for the user.
        answered: the audits that were answered so far.
        findings: their answers.
    """

    questions: Sequence[Audit]
    tiers: Sequence[Collection[int]]
    times: AuditTimes
    left_out: Sequence[LeftOut] = ()
    budget: float | None = None
    line: Callable[[str], None] = lambda text: None
    answered: list[Audit] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _asked: list[int] = field(default_factory=list)
    _spent: float = 0.0
    _foreseen: float = 0.0  # of what was asked, by the timed passes alone

    def announce(self) -> None:
        """Say what will be asked, how long it takes, and what is left out and why."""
        choice, texts = self._choice(), self._texts
        total = duration(sum(seconds or 0.0 for _, seconds in choice.chosen))
        limit = "" if self.budget is None else f" of the {duration(self.budget)} given"
        order = f"{'most wanted' if self.budget is not None else 'cheapest'} first"
        told = on_first_process(lambda: self.times.rests_on() if choice.chosen else "")
        self.line(f"{len(choice.chosen)} audits, about {total}{limit}, {order}: {texts(choice.chosen)}")
        if told:
            self.line(f"estimated from {told}")
        if choice.over:
            self.line(f"left out for time: {texts(choice.over)}")
        for one in self.left_out:
            self.line(f"not asked: {one.name}: {one.reason}")

    def ask(self, subject: Subject, answered: Callable[[Finding], None]) -> list[Finding]:
        """Ask one after the other; after each the rest is planned anew against the time that is left.

        An audit that finds it has no answer here is left out with its reason, the others go on.

        Returns:
            The findings, of the audits in ``answered``.

        Raises:
            UserError: when none was answered: that of the first.
        """
        first, before = None, self._choice()
        while before.chosen:
            index, estimate = before.chosen[0]
            question, start = self.questions[index], time.monotonic()
            try:
                (finding,) = put(subject, [question], answered, len(self._asked), len(before.chosen))
                self.answered.append(question)
                self.findings.append(finding)
                row = {"state": "answered"}
            except UserError as reason:
                first = first or reason
                self.line(f"no answer from {question.label()}: {reason}")
                row = {"state": "no answer", "reason": str(reason)}
            self._note(index, estimate, time.monotonic() - start, row)
            before = self._again(before)
        if first is not None and not self.findings:
            raise first
        if not self.findings:
            raise UserError(f"no audit fits into {duration(self.budget or 0.0)}: give more --budget, or fewer --inputs")
        self._rows += [
            {"audit": self.questions[k].label(), "state": "left out", "reason": _over_reason(s), "estimate": s}
            for k, s in before.over
        ]
        return self.findings

    def has_time_for(self, questions: Sequence[Audit]) -> bool:
        """Whether further audits fit into what is left of the budget."""
        if self.budget is None:
            return True
        left = self.budget - self._spent
        done = {key for question in self.answered for key in self.times.keys(question)}

        def fits() -> bool:
            each = [self.times.seconds(question, done) for question in questions]
            known = [self._pace * seconds for seconds in each if seconds is not None]
            return len(known) == len(each) and sum(known) <= left

        return on_first_process(fits)

    def finding(self) -> Finding:
        """What was asked, how long it took beside its estimate, and what was left out for which reason."""
        rows = [*self._rows, *({"audit": o.name, "state": "not asked", "reason": o.reason} for o in self.left_out)]
        counts = {
            state: sum(row["state"] == state for row in rows) for state in dict.fromkeys(r["state"] for r in rows)
        }
        estimate = sum(row.get("estimate") or 0.0 for row in self._rows if row["state"] == "answered")
        verdict = (
            f"{counts['answered']} of {len(rows)} audits were answered in {duration(self._spent)}, which were "
            f"estimated at {duration(estimate)}"
        )
        words = {"not asked": "not asked", "left out": "left out for time", "no answer": "no answer"}
        others = [
            f"{text}: {', '.join(row['audit'] for row in rows if row['state'] == state)}"
            for state, text in words.items()
            if state in counts
        ]
        data = {"budget": self.budget, "seconds": self._spent, "estimate": estimate, "rows": rows}
        return Finding(KIND, _TITLE, "; ".join([verdict, *others]) + ".", "info", data)

    def _choice(self) -> Choice:
        """By the first process, since each has a clock of its own."""
        left = None if self.budget is None else self.budget - self._spent
        tiers = [[index for index in tier if index not in self._asked] for tier in self.tiers]
        done = {key for index in self._asked for key in self.times.keys(self.questions[index])}
        return on_first_process(partial(choose, self.times, self.questions, tiers, done, left, self._pace))

    @property
    def _pace(self) -> float:
        """How many times their estimate the audits took that were asked, 1 at least; once that is more than moments."""
        return max(1.0, self._spent / self._foreseen) if self._foreseen > _MOMENTS else 1.0

    def _note(self, index: int, estimate: float | None, seconds: float, row: dict[str, Any]) -> None:
        label = self.questions[index].label()
        plain = None if estimate is None else estimate / self._pace
        self._asked.append(index)
        self._spent += seconds
        self._foreseen += plain or 0.0
        self._rows.append({"audit": label, **row, "estimate": plain, "seconds": seconds})
        if estimate is not None and seconds > _FAR * estimate and seconds - estimate > _LONG:
            self.line(f"{label} took {duration(seconds)}, not {duration(estimate)} as estimated")

    def _again(self, before: Choice) -> Choice:
        """The rest, planned anew; what that changes is said."""
        now = self._choice()
        left = "" if self.budget is None else f" (about {duration(max(0.0, self.budget - self._spent))} are left)"
        was = {index for index, _ in before.chosen}
        lost = [place for place in now.over if place[0] in was]
        won = [place for place in now.chosen if place[0] not in was]
        if lost:
            self.line(f"now left out for time{left}: {self._texts(lost)}")
        if won:
            self.line(f"now asked as well{left}: {self._texts(won)}")
        return now

    def _texts(self, places: Sequence[Place]) -> str:
        return ", ".join(
            f"{self.questions[k].label()} {'(time not known)' if s is None else duration(s)}" for k, s in places
        )


def _over_reason(seconds: float | None) -> str:
    if seconds is None:
        return "it does not say how many passes it makes, so its time is not known; ask it without --budget"
    return f"it would take about {duration(seconds)} more"
