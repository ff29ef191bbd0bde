"""The passes that every registered attack states, against those that its searches count."""

import dataclasses

import pytest
import torch
from torch import nn

from buttress import registry
from buttress.attacks import PGD, Attack, Perturbation
from buttress.attacks.composed.autoattack import SUITES, AutoAttack
from buttress.attacks.composed.ensemble import Ensemble
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.apgd import APGD
from buttress.attacks.minimum_norm.deepfool import DeepFool
from buttress.attacks.minimum_norm.fab import FAB
from buttress.attacks.minimum_norm.jsma import JSMA
from buttress.engine.pass_count import PassCount
from buttress.threat import Threat

CHEAP = {"steps": 4, "queries": 31, "search_steps": 2, "samples": 2, "population": 4, "probes": 4}
# Bounds alone: one attacks what is not certified, one gives up where it stalls, and the others need not ask what the
# attack inside may ask of another network.
BOUNDED = {"certified-first", "cw", "ensemble", "transfer", "variant"}


class Unmoved(nn.Module):
    """The first of some classes by far, whatever a small perturbation does to the slopes."""

    def __init__(self, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 64, generator=torch.Generator().manual_seed(classes)))

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.weight.T) + 50.0 * torch.arange(len(self.weight)).eq(0)


def counted(attack, classes, search, model=None):
    """The most that one of three inputs cost."""
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(3, dtype=torch.int64)
    result = attack(model or Unmoved(classes), x, y, search=search)
    return PassCount(int(result.forwards.max()), int(result.backwards.max()))


def cheap(name, **changes):
    member = registry.attack.get(name)
    known = {field.name for field in dataclasses.fields(member)}
    wanted = {**CHEAP, **changes}
    return member(**{key: value for key, value in wanted.items() if key in known})


@pytest.mark.parametrize("name", registry.attack.names())
@pytest.mark.parametrize("classes", [4, 10])
def test_every_attack_states_what_it_costs_at_most(name, classes):
    """A network that nothing moves is searched to the end."""
    attack = cheap(name, surrogate=Unmoved(classes))
    stated = attack.most_passes(classes)
    spent = counted(attack, classes, "first")
    assert spent.forwards <= stated.forwards
    assert spent.backwards <= stated.backwards
    if name not in BOUNDED:
        assert spent == stated


@pytest.mark.parametrize("name", registry.attack.names())
def test_a_network_that_gives_way_costs_no_more(name, nets):
    attack = cheap(name, surrogate=nets.awkward(64), steps=3)
    model, stated = nets.awkward(64), attack.most_passes(4)
    for search in ("first", "full"):
        spent = counted(attack, 4, search, model)
        assert spent.forwards <= stated.forwards
        assert spent.backwards <= stated.backwards


FREE = Threat(eps=0.1)
SPECIAL = [
    PGD(threat=FREE, steps=3, restarts=3),
    PGD(threat=FREE, steps=3, loss="kl"),
    *(APGD(threat=Threat(norm=norm, eps=2.0), steps=9, large_start=True) for norm in ("l1", "linf")),
    APGD(threat=FREE, steps=3, targets=9, restarts=2),
    FAB(threat=FREE, steps=3, targets=2, restarts=2),
    DeepFool(steps=3, candidates=None),
    *(AutoAttack(threat=FREE, version=version, steps=3, queries=5, draws=2) for version in SUITES),
    AutoAttack(threat=Threat(norm="l1", eps=2.0), steps=3, queries=5),
    EoT(attack=PGD(threat=FREE, steps=2), draws=3),
    EoT(attack=EoT(attack=PGD(threat=FREE, steps=2), draws=5), draws=2),
    EoT(attack=JSMA(steps=2), draws=3, transforms=lambda x, random: 1.0 * x),
    Transfer(attack=EoT(attack=APGD(threat=FREE, steps=2, targets=2), draws=3), surrogate=Unmoved(5)),
    Ensemble(attack=APGD(threat=FREE, steps=2, targets=2), models=[Unmoved(5), Unmoved(5)]),
    Ensemble(attack=JSMA(steps=2), models=[Unmoved(5)]),
]


@pytest.mark.parametrize("attack", SPECIAL, ids=lambda attack: attack.label())
@pytest.mark.parametrize("search", ["first", "full"])
def test_settings_that_multiply_the_cost_are_in_the_bound(attack, search):
    stated, spent = attack.most_passes(5), counted(attack, 5, search)
    assert spent.forwards <= stated.forwards <= 2 * spent.forwards + 10  # a bound far off would be none
    assert spent.backwards <= stated.backwards <= 2 * spent.backwards + 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Attack):
    """A user's own, which states nothing."""

    threat: Threat = FREE

    def perturb(self, oracle, x, y, random):
        return x


def test_a_users_own_attack_states_nothing_unless_it_says_so():
    assert Own().most_passes(10) is None
    assert EoT(attack=Own()).most_passes(10) is None
    assert Perturbation.search_passes is Own.search_passes
