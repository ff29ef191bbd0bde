"""How far an attack is: passes of the inputs that still stand, of the most that it states."""

import pytest
import torch

from buttress.attacks import APGD, CW, FGSM, PGD, AutoAttack, DeepFool, Square
from buttress.engine.pass_count import PassCount
from buttress.engine.pass_watch import passed, passes_watched
from buttress.threat import Threat

THREAT = Threat(eps=0.05)
ATTACKS = [
    FGSM(threat=THREAT),
    PGD(threat=THREAT, steps=10),
    PGD(threat=THREAT, steps=5, restarts=2),
    APGD(threat=THREAT, steps=10),
    Square(threat=THREAT, queries=30),
    CW(steps=10),
    DeepFool(),
    AutoAttack(threat=THREAT, steps=10, queries=50),
]


def test_passes_of_a_part_count_by_its_size():
    told = []
    with passes_watched(lambda outputs: PassCount(forwards=4 * outputs), told.append):
        for asked, standing in ((2, 4), (2, 4), (1, 1), (100, 100)):
            passed(2, asked, standing, 3)
    assert told == [1 / 12, 2 / 12, 4 / 12, 6 / 12]


def test_nothing_is_told_of_an_attack_that_states_no_passes_or_to_nobody():
    told = []
    with passes_watched(lambda outputs: None, told.append):
        passed(1, 1, 1, 3)
    with passes_watched(lambda outputs: PassCount(1), None):
        passed(1, 1, 1, 3)
    passed(1, 1, 1, 3)
    assert told == []


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.label())
@pytest.mark.parametrize("search", ["first", "full"])
def test_shares_grow_and_stay_below_one(attack, search, nets):
    model = nets.linear(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    x = torch.rand(12, 1, 2, 4, generator=torch.Generator().manual_seed(1))
    told = []
    with passes_watched(attack.most_passes, told.append):
        attack(model, x, model(x).argmax(1), search=search, batch_size=5)
    assert told == sorted(told)
    assert told[0] > 0
    assert told[-1] < 1
