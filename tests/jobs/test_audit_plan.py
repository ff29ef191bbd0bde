"""What is chosen within a time, in which order, and that what was left out is said."""

from dataclasses import dataclass

import pytest
import torch

from buttress import audits
from buttress.audits import Audit, Finding
from buttress.audits.base.work import Work
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.jobs.audit_plan import AuditPlan, choose, tiers
from buttress.jobs.audit_times import AuditTimes
from buttress.jobs.every_audit import LeftOut
from buttress.jobs.pace import Pace

CLOCK = [0.0]


@dataclass(frozen=True)
class Takes(Audit):
    """Says that it takes so many seconds, and takes others."""

    name: str
    said: int | None
    takes: float | None = None
    answer: str | None = "Yes."

    def label(self):
        return self.name

    def work(self, subject):
        return None if self.said is None else Work(passes=PassCount(self.said))

    def ask(self, subject):
        CLOCK[0] += float(self.said or 0) if self.takes is None else self.takes
        if self.answer is None:
            raise UserError(f"{self.name} knows nothing of this")
        return Finding("takes", self.name, self.answer, "info", {})


@pytest.fixture
def subject(nets, monkeypatch):
    """One pass takes a second."""
    CLOCK[0] = 0.0
    monkeypatch.setattr("time.monotonic", lambda: CLOCK[0])
    monkeypatch.setattr(Pace, "of", classmethod(lambda cls, *batch: cls(1.0, 0.0, 2)))
    return audits.subject(nets.linear(torch.eye(2)), [(torch.rand(1, 2), torch.zeros(1, dtype=torch.int64))])


def planned(subject, questions, named=(), usual=(), budget=None, left_out=()):
    lines = []
    order = tiers(questions, named, usual)
    return AuditPlan(questions, order, AuditTimes(subject), left_out, budget, lines.append), lines


def answered(plan, subject):
    return [finding.title for finding in plan.ask(subject, lambda finding: None)]


def test_without_a_limit_all_are_asked_the_cheapest_first(subject):
    questions = [Takes("c", 30), Takes("unknown", None), Takes("a", 1), Takes("b", 20)]
    plan, lines = planned(subject, questions, usual=questions[:1], left_out=[LeftOut("other", "it is not for this")])
    plan.announce()
    assert lines[0] == "4 audits, about 51 s, cheapest first: a 1 s, b 20 s, c 30 s, unknown (time not known)"
    assert lines[-1] == "not asked: other: it is not for this"
    assert answered(plan, subject) == ["a", "b", "c", "unknown"]
    assert plan.finding().verdict == (
        "4 of 5 audits were answered in 51 s, which were estimated at 51 s; not asked: other."
    )


def test_within_a_time_worth_comes_first_and_then_the_cheapest(subject):
    """30 s: the named one and the usual one fit, then what is left goes to as many others as fit."""
    questions = [Takes("other 1", 1), Takes("named", 10), Takes("usual", 15), Takes("other 6", 6), Takes("other 4", 4)]
    plan, lines = planned(subject, questions, named=questions[1:2], usual=questions[2:3], budget=30)
    plan.announce()
    assert lines[0].endswith(
        "about 30 s of the 30 s given, most wanted first: named 10 s, usual 15 s, other 1 1 s, other 4 4 s"
    )
    assert lines[2] == "left out for time: other 6 6 s"
    assert answered(plan, subject) == ["named", "usual", "other 1", "other 4"]
    rows = {row["audit"]: row for row in plan.finding().data["rows"]}
    assert (rows["other 6"]["state"], rows["other 6"]["estimate"]) == ("left out", 6)
    assert (rows["usual"]["state"], rows["usual"]["estimate"], rows["usual"]["seconds"]) == ("answered", 15, 15)


def test_what_takes_longer_is_said_and_the_rest_planned_anew(subject):
    questions = [Takes("slow", 5, 25.0), Takes("next", 10), Takes("last", 14)]
    plan, lines = planned(subject, questions, budget=30)
    assert answered(plan, subject) == ["slow"]
    assert lines == [
        "slow took 25 s, not 5 s as estimated",
        "now left out for time (about 5 s are left): next 10 s, last 14 s",
    ]
    assert "left out for time: next, last" in plan.finding().verdict


def test_what_was_seen_corrects_the_rest(subject):
    """Twice as long as estimated, after estimates of more than moments: the next is reckoned at twice its estimate."""
    questions = [Takes("first", 12, 24.0), Takes("second", 13, 26.0), Takes("third", 14, 28.0)]
    plan, lines = planned(subject, questions, budget=60)
    assert answered(plan, subject) == ["first", "second"]
    assert "now left out for time (about 36 s are left): third 28 s" in lines


def test_what_takes_less_makes_room(subject):
    questions = [Takes("quick", 20, 1.0), Takes("large", 25)]
    plan, lines = planned(subject, questions, budget=30)
    assert answered(plan, subject) == ["quick", "large"]
    assert lines == ["now asked as well (about 29 s are left): large 25 s"]


def test_an_unknown_time_does_not_begin_within_a_limit(subject):
    questions = [Takes("known", 1), Takes("unknown", None)]
    plan, lines = planned(subject, questions, named=questions[1:], budget=600)
    plan.announce()
    assert lines[-1] == "left out for time: unknown (time not known)"
    assert answered(plan, subject) == ["known"]


def test_one_without_an_answer_stops_no_other(subject):
    questions = [Takes("mute", 1, answer=None), Takes("speaks", 2)]
    plan, lines = planned(subject, questions)
    assert answered(plan, subject) == ["speaks"]
    assert lines == ["no answer from mute: mute knows nothing of this"]
    row = plan.finding().data["rows"][0]
    assert (row["state"], row["reason"]) == ("no answer", "mute knows nothing of this")


def test_where_none_answers_the_first_says_why(subject):
    plan, _ = planned(subject, [Takes("mute", 1, answer=None)])
    with pytest.raises(UserError, match="mute knows nothing of this"):
        plan.ask(subject, lambda finding: None)


def test_a_time_into_which_nothing_fits_is_refused(subject):
    plan, _ = planned(subject, [Takes("large", 100)], budget=5)
    with pytest.raises(UserError, match="no audit fits into 5 s: give more --budget, or fewer --inputs"):
        plan.ask(subject, lambda finding: None)


def test_further_audits_are_asked_where_there_is_time(subject):
    plan, _ = planned(subject, [Takes("first", 20)], budget=30)
    plan.ask(subject, lambda finding: None)
    assert plan.has_time_for([Takes("more", 10)])
    assert not plan.has_time_for([Takes("more", 11)])
    assert not plan.has_time_for([Takes("more", None)])


def test_equal_questions_keep_their_places(subject):
    """Two that are equal are two."""
    questions = [Takes("same", 3), Takes("same", 3)]
    choice = choose(AuditTimes(subject), questions, [[0, 1]], (), 100.0)
    assert sorted(index for index, _ in choice.chosen) == [0, 1]
