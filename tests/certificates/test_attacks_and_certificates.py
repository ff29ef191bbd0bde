"""No registered attack breaks an input that is certified, by discovery, in every norm."""

import pytest
import torch
from tests.attacks.members import made
from tests.certificates import zoo

from buttress import certificates, registry
from buttress.threat import Threat

CASES = [("max pool", "linf"), ("residual", "linf"), ("residual", "l2"), ("max pool", "l1")]


@pytest.fixture(scope="module", params=CASES)
def certified(request):
    """A network, inputs with the classes it gives them, a threat, and the half of them that is certified."""
    name, norm = request.param
    model = zoo.network(name, seed=3)
    x = torch.rand(16, *zoo.SHAPE, generator=torch.Generator().manual_seed(5))
    y = model(x).argmax(1)
    radii = certificates.radius(model, x, y, threat=Threat(norm=norm, eps=1.0), steps=8)
    threat = Threat(norm=norm, eps=float(radii.median()))
    verified = certificates.certify(model, x, y, threat=threat, method="alpha-crown", steps=5).verified
    assert 6 <= verified.sum() < 16
    return model, x, y, threat, verified


@pytest.mark.parametrize("name", registry.attack.names())
def test_no_attack_breaks_a_certified_input(certified, name):
    model, x, y, threat, verified = certified
    attack = made(name, threat, zoo.network("relu", seed=2))
    if attack is None:
        return
    x_adv = attack(model, x, y).x_adv
    allowed = threat.contains(x_adv, x)  # a minimum-norm attack may have gone further
    assert not ((model(x_adv).argmax(1) != y) & allowed & verified).any()
