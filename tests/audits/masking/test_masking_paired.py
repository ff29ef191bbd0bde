"""Exact paired tests against sums written out, and the rate of false alarms under a simulated null."""

import math

import pytest
import torch

from buttress.audits.masking.audit import TESTS, Masking
from buttress.audits.masking.checks import CHECKS
from buttress.audits.masking.checks.paired_attacks import at_least, compare, least_gap

SETTINGS = {"level": 0.01 / TESTS, "floor": 0.01, "tolerated": 0.05}


def tail(count, trials, chance):
    return sum(math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(count, trials + 1))


@pytest.mark.parametrize(("count", "trials"), [(0, 0), (0, 9), (1, 1), (5, 9), (9, 9), (23, 40)])
@pytest.mark.parametrize("chance", [0.5, 0.05])
def test_the_tail_of_a_binomial(count, trials, chance):
    assert at_least(count, trials, chance) == pytest.approx(tail(count, trials, chance), abs=1e-12)


def pair(won, lost, both=10, neither=10, **settings):
    """Inputs that only the challenger beats, only the reference, both and neither."""
    stands = torch.tensor([False] * won + [True] * lost + [False] * both + [True] * neither)
    others = torch.tensor([True] * won + [False] * lost + [False] * both + [True] * neither)
    return compare(("a", stands), ("b", others), **{**SETTINGS, **settings})


def test_counts_and_p_values():
    found = pair(14, 3)
    assert (found.won, found.lost, found.inputs) == (14, 3, 37)
    assert (found.standing, found.reference_standing) == (13, 24)
    assert found.surplus == pytest.approx(11 / 37)
    assert found.p == pytest.approx(tail(14, 17, 0.5))
    assert found.p_missed == pytest.approx(tail(14, 37, 0.05))
    assert found.plain()["surplus"] == found.surplus
    assert pair(0, 0).p == 1


def test_significance_alone_does_not_count():
    """12 of 12 is significant; of 10,000 inputs it is less than the floor."""
    assert pair(12, 0, neither=500).p <= SETTINGS["level"]
    assert pair(12, 0, neither=500).stronger
    assert not pair(12, 0, neither=10_000).stronger


@pytest.mark.parametrize(("inputs", "floor"), [(12, 0.01), (40, 0.01), (200, 0.01), (200, 0.3), (1000, 0.01)])
def test_the_least_gap_is_the_first_that_is_shown(inputs, floor):
    shown = [pair(won, 0, both=0, neither=inputs - won, floor=floor, effort=True).stronger for won in range(inputs + 1)]
    assert least_gap(inputs, **{**SETTINGS, "floor": floor}) == shown.index(True) / inputs
    assert shown == sorted(shown)


def test_the_least_gap_shrinks_towards_what_is_tolerated_and_few_inputs_show_none():
    gaps = [least_gap(inputs, **SETTINGS) for inputs in (50, 200, 1000, 10_000)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[1] == 23 / 200
    assert 0.05 < gaps[-1] < 0.06
    assert least_gap(5, **SETTINGS) is None


def test_an_effect_alone_does_not_count():
    few = pair(5, 0, both=0, neither=5, tolerated=0.6)
    assert few.surplus == 0.5
    assert not few.stronger


def test_more_effort_may_win_what_is_tolerated():
    """Both of a weaker and of a costlier attack 30 of 500 are won, 6 percent: only one of them may."""
    assert pair(30, 0, both=0, neither=470).stronger
    assert not pair(30, 0, both=0, neither=470, effort=True).stronger
    assert pair(60, 0, both=0, neither=440, effort=True).stronger


def test_a_weaker_attack_must_not_find_many_others_whatever_it_loses():
    """The reference beats more, and still overlooks a quarter of the inputs."""
    found = pair(50, 90, both=20, neither=40)
    assert found.surplus < 0
    assert found.stronger
    assert not pair(50, 90, both=20, neither=40, effort=True).stronger


def test_false_alarms_of_the_whole_family_are_rarer_than_the_level():
    """On the edge of both nulls: equally strong attacks that each miss the tolerated share of what the other beats."""
    comparisons, runs, inputs = TESTS // 2, 4000, 200
    random = torch.Generator().manual_seed(0)
    kinds = torch.multinomial(torch.tensor([0.05, 0.05, 0.9]), comparisons * runs * inputs, True, generator=random)
    counts = [(kinds.view(runs, comparisons, inputs) == kind).sum(2).tolist() for kind in (0, 1)]
    cache = {}

    def alarm(won, lost):
        if (won, lost) not in cache:
            cache[won, lost] = pair(won, lost, both=0, neither=inputs - won - lost).stronger
        return cache[won, lost]

    alarms = sum(any(alarm(won, lost) for won, lost in zip(*row, strict=True)) for row in zip(*counts, strict=True))
    assert alarms / runs <= Masking().level
    assert alarms > 0  # the case is at the edge indeed


def test_a_real_gap_is_found_nearly_always():
    random = torch.Generator().manual_seed(1)
    kinds = torch.multinomial(torch.tensor([0.2, 0.02, 0.78]), 500 * 200, True, generator=random).view(500, 200)
    found = sum(
        pair(int((k == 0).sum()), int((k == 1).sum()), both=0, neither=int((k == 2).sum())).stronger for k in kinds
    )
    assert found / 500 > 0.99


def test_the_level_is_shared_by_all_tests_that_are_made():
    assert sum(check.tests for check in CHECKS) == TESTS
    assert Masking(level=0.03).level / TESTS == pytest.approx(0.001)
