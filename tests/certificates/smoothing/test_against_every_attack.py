"""No registered attack, put on the smoothed network, contradicts its certificates."""

import pytest
import torch
from tests.attacks.members import made

from buttress import registry
from buttress.attacks import Attack, SmoothAdv
from buttress.attacks.composed.eot import WrapperAttack
from buttress.certificates import Smoothed
from buttress.threat import Threat

EPS, SIGMA = 0.15, 0.3
MEMBERS = {name: registry.attack.get(name) for name in registry.attack.names()}
NAMES = [
    name for name, member in MEMBERS.items() if issubclass(member, Attack) and not issubclass(member, WrapperAttack)
]


@pytest.fixture(scope="module")
def certified(nets):
    """(network, inputs, their classes, their ids), all certified beyond EPS."""
    model, x = nets.conv(seed=3), torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    certificate = Smoothed(model, sigma=SIGMA, n=500).certify(x)
    kept = (certificate.radius > EPS).nonzero().squeeze(1)
    assert len(kept) >= 5
    return model, x[kept], certificate.label[kept], kept


@pytest.mark.parametrize("name", NAMES)
def test_it_turns_no_certified_input_into_another_class(certified, name):
    model, x, y, ids = certified
    attack = made(name, Threat(norm="l2", eps=EPS))
    if attack is None:  # not defined in l2
        return
    x_adv = SmoothAdv(attack=attack, sigma=SIGMA, samples=2)(model, x, y, ids=ids).x_adv
    assert float((x_adv - x).flatten(1).norm(dim=1).max()) <= EPS * (1 + 1e-5)
    answer = Smoothed(model, sigma=SIGMA, n=200, alpha=1e-4).predict(x_adv, ids=ids)
    assert bool(((answer.label == y) | (answer.label == -1)).all())
