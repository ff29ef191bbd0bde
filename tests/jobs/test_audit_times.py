"""Estimates from a clock that is known: passes times seconds, each attack once."""

from dataclasses import dataclass

import pytest
import torch

from buttress import audits
from buttress.attacks import Attack
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Audit, Finding
from buttress.audits.base.work import Work, asked
from buttress.engine.pass_count import PassCount
from buttress.jobs.audit_times import AuditTimes
from buttress.jobs.pace import Pace
from buttress.threat import Threat

FREE = Threat(eps=0.2, box=None)
PGD_8, FGSM_1 = PGD(threat=FREE, steps=8), FGSM(threat=FREE)  # with clean and verdict 10 and 3 forwards, 8 and 1 back


@dataclass(frozen=True)
class Says(Audit):
    """Says what it does."""

    attacks: tuple[Attack, ...] = ()
    passes: int = 0
    search: str = "full"
    known: bool = True

    def work(self, subject):
        count = len(subject.y)
        return Work(asked(self.attacks, count, self.search), PassCount(self.passes)) if self.known else None

    def ask(self, subject):
        for attack in self.attacks:
            subject.attacked(attack, search=self.search)
        return Finding("says", "Says", "Yes.", "info", {})


@dataclass(frozen=True, kw_only=True)
class Silent(Attack):
    """Does not say how many passes it makes."""

    threat: Threat = FREE

    def perturb(self, oracle, x, y, random):
        return x


@pytest.fixture
def subject(nets):
    """Ten inputs, all right, of a network that small changes do not move."""
    model = nets.linear(torch.tensor([[0.001, 0.0], [0.0, 0.001]]), torch.tensor([9.0, 0.0]))
    return audits.subject(model, [(torch.rand(10, 2), torch.zeros(10, dtype=torch.int64))], batch_size=5)


@pytest.fixture
def times(subject, monkeypatch):
    """A batch of 5 takes 5 s forward and 10 s backward: an input 1 s and 2 s."""
    monkeypatch.setattr(Pace, "of", classmethod(lambda cls, *batch: cls(5.0, 10.0, 2)))
    return AuditTimes(subject)


def test_seconds_are_passes_times_the_pace(times):
    assert times.seconds(Says((), 7)) == 7
    assert times.seconds(Says((FGSM_1,), 7)) == 7 + 10 * (3 * 1 + 1 * 2)
    assert times.seconds(Says((FGSM_1, FGSM_1))) == 10 * (3 * 1 + 1 * 2)


def test_what_was_run_for_others_costs_nothing(times):
    first, second = Says((FGSM_1, PGD_8)), Says((PGD_8,), 3)
    assert times.seconds(second, times.keys(first)) == 3
    assert times.seconds(Says((PGD_8,), 3, "first"), times.keys(first)) > 3  # another search is another run


def test_what_is_not_said_is_not_known(times):
    assert times.seconds(Says(known=False)) is None
    assert times.seconds(Says((Silent(), FGSM_1))) is None
    assert times.keys(Says(known=False)) == set()


def test_the_cheapest_comes_first_after_what_was_shared(times):
    """PGD costs 260 s, FGSM 50; the third is free once the second has run, and so precedes the fourth."""
    questions = [Says(known=False), Says((PGD_8,)), Says((PGD_8,), 1), Says((), 270)]
    order = times.cheapest_first(questions)
    assert [questions.index(one.question) for one in order] == [1, 2, 3, 0]
    assert [one.seconds for one in order] == [260, 1, 270, None]


@pytest.mark.parametrize(("scale", "share"), [(0.001, 1.0), (0.0, 1.0)])
def test_inputs_that_resist_are_counted_as_such(nets, subject, scale, share):
    assert AuditTimes(subject, FREE).resisting == share


def test_inputs_that_fall_are_taken_to_leave_early(nets, monkeypatch):
    """Two classes told apart by the sign of one feature, which the budget turns round; a fifth of the passes each."""
    monkeypatch.setattr(Pace, "of", classmethod(lambda cls, *batch: cls(1e-3, 2e-3, 2)))
    monkeypatch.setattr(AuditTimes, "between", 0.0)
    model = nets.linear(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    x = torch.tensor([[0.1, 0.0], [0.5, 0.0]]).repeat(4, 1)
    fallen = audits.subject(model, [(x, torch.zeros(8, dtype=torch.int64))], batch_size=8)
    times = AuditTimes(fallen, FREE)
    assert times.resisting == 0.5
    all_resist = 8 * (3 * 1e-3 + 2e-3) / 8
    assert times.seconds(Says((FGSM_1,), 0, "first")) == pytest.approx((0.5 + 0.5 * 0.2) * all_resist)
    assert times.seconds(Says((FGSM_1,), 0, "full")) == pytest.approx(all_resist)


def test_a_network_without_gradients_is_taken_to_resist():
    class Steps(torch.nn.Module):
        def forward(self, x):
            return x.detach().sign()

    subject = audits.subject(Steps(), [(torch.rand(4, 2), torch.zeros(4, dtype=torch.int64))])
    assert AuditTimes(subject, FREE).resisting == 1


def test_what_attacks_compute_between_passes_is_timed_by_one(subject, monkeypatch):
    """A clock that advances 26 s: PGD-10's 12 forward and 10 backward passes take none of them, so each has 26 / 12."""
    looks = iter([100.0, 126.0])
    monkeypatch.setattr(Pace, "of", classmethod(lambda cls, *batch: cls(0.0, 0.0, 2)))
    times = AuditTimes(subject, FREE)
    assert times.pace.outputs == 2
    monkeypatch.setattr("buttress.jobs.audit_times.time.perf_counter", lambda: next(looks))
    assert times.between == pytest.approx(26 / 12)
    assert times.seconds(Says((FGSM_1,))) == pytest.approx(3 * 26 / 12 * 10 / 5)
    assert AuditTimes(subject).between == 0
