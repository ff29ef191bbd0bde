"""Every registered attack under an attacker's target: the strongest rival counts, also where that is a third class."""

import logging

import pytest
import torch
from tests.attacks.members import somewhere

from buttress import registry
from buttress.attacks import FAB, FMN, PGD, Attack, AutoAttack
from buttress.attacks.composed.autoattack import PARTS
from buttress.threat import Threat

NAMES = [name for name in registry.attack.names() if issubclass(registry.attack.get(name), Attack)]
# One of four features has to rise from 0.3 to 0.6; the others count for nothing.
THREATS = [Threat(eps=0.4), Threat(norm="l2", eps=0.5), Threat(norm="l1", eps=0.7)]
ENOUGH = {"steps": 40, "queries": 300, "search_steps": 3, "samples": 4, "population": 40, "lr": 0.1, "draws": 1}
# Of smoothadv the verdict is about the network without noise, which little of it hardly changes.
SPECIAL = {"jsma": {"gamma": 1.0}, "cw": {"c": 1.0}, "smoothadv": {"sigma": 1e-3}}


@pytest.fixture(scope="module")
def ladder(nets):
    """Class 0 leads where the first feature is below 0.4, class 1 up to 0.6, class 2 from there on, class 3 nowhere.

    Class 2 overtakes the truth at 0.5: what is led to that face alone ends where class 1 leads.
    """
    weight = torch.zeros(4, 4, dtype=torch.float64)
    weight[:, 0] = torch.tensor([0.0, 4.0, 8.0, -8.0])
    x = torch.full((3, 1, 2, 2), 0.3, dtype=torch.float64) + torch.tensor([0.0, 0.01, 0.02]).view(3, 1, 1, 1)
    return nets.linear(weight, [0.0, -1.6, -4.0, -9.0]), x.double(), torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_behind_a_third_class_is_reached(ladder, name):
    model, x, y = ladder
    assert model(torch.full_like(x, 0.5)).argmax(1).tolist() == [1] * 3
    settings = {**ENOUGH, **SPECIAL.get(name, {})}
    attack = somewhere(name, model, THREATS, inner=FAB, **settings)
    for search in ("full", "first"):
        result = attack(model, x, y, target=2, search=search)
        assert result.success.all()
        assert torch.equal(model(result.x_adv).argmax(1), torch.full_like(y, 2))


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_autoattack_reaches_it(ladder, threat, part):
    model, x, y = ladder
    if part == "square" and threat.norm != "linf":  # its windows there are three pixels wide, the image is two
        return
    assert AutoAttack(threat=threat, parts=part, steps=20, queries=300)(model, x, y, target=2).success.all()


def test_fab_finds_a_region_between_two_planes(nets):
    """Linear models of three classes: FMN, which steps otherwise, finds no target that FAB does not."""
    generator, found = torch.Generator().manual_seed(12), 0
    for _ in range(4):
        weight = torch.randn(3, 4, dtype=torch.float64, generator=generator)
        model = nets.linear(weight, torch.randn(3, dtype=torch.float64, generator=generator))
        x = torch.randn(10, 4, dtype=torch.float64, generator=generator)
        y, target = model(x).argmax(1), model(x).argmin(1)
        threat = Threat(norm="l2", eps=1e4, box=None)
        ours, theirs = (attack(threat=threat, steps=50)(model, x, y, target=target) for attack in (FAB, FMN))
        assert ours.success[theirs.success].all()
        assert (ours.distance <= 1.5 * theirs.distance)[theirs.success].all()
        found += int(theirs.success.sum())
    assert found > 20


@pytest.mark.parametrize(
    "given", [2, [2, 2, 2], (2, 2, 2), torch.tensor(2), torch.tensor([2, 2, 2], dtype=torch.uint8)]
)
def test_a_class_for_all_is_that_class_for_each(ladder, given):
    model, x, y = ladder
    attack = PGD(threat=THREATS[0], steps=5)
    wanted = attack(model, x, y, target=torch.full((3,), 2))
    assert torch.equal(attack(model, x, y, target=given).x_adv, wanted.x_adv)
    assert torch.equal(attack.craft(model, x, y, target=given), wanted.x_adv)
    assert attack(model, x[:0], y[:0], target=2).success.shape == (0,)


def test_a_target_that_is_the_truth_is_told(ladder, caplog):
    model, x, y = ladder
    with caplog.at_level(logging.WARNING):
        result = PGD(threat=THREATS[0], steps=5)(model, x, y, target=[0, 2, 0])
    assert "the target of 2 of the 3 inputs is their own class" in caplog.text
    assert result.success.all()
