"""Networks that torch.jit has scripted or traced are attacked like any other, and come back as they were."""

import copy

import pytest
import torch
from torch import nn

from buttress.attacks import APGD, BPDA, PGD, Square, Transfer
from buttress.errors import UserError
from buttress.threat import Threat

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
THREAT = Threat(eps=0.03)


def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 4)
    )


def scripted(model, x):
    return torch.jit.script(model)


def traced(model, x):
    return torch.jit.trace(model, x)


@pytest.fixture(params=[scripted, traced])
def pair(request, nets):
    """A network, the same in TorchScript, and inputs."""
    model, x = nets.seeded(build).eval(), torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return model, request.param(copy.deepcopy(model), x), x


@pytest.mark.representatives(precision=["fp32", "twin"])
@pytest.mark.parametrize("search", ["full", "first"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "folded", "twin", "auto"])
def test_attacks_find_what_they_find_on_the_network_itself(pair, precision, search):
    model, script, x = pair
    y = model(x).argmax(1)
    for attack in (PGD(threat=THREAT, steps=3), APGD(threat=THREAT, steps=3), Square(threat=THREAT, queries=5)):
        ours = attack(script, x, y, precision=precision, search=search)
        assert torch.equal(ours.success, model(ours.x_adv).argmax(1) != y)
        if precision == "fp32":
            torch.testing.assert_close(ours.x_adv, attack(model, x, y, search=search).x_adv, rtol=0, atol=1e-6)


def test_hooks_on_layers_are_refused(pair):
    _, script, x = pair
    with pytest.raises(UserError, match="a scripted module takes no hooks"):
        BPDA(attack=PGD(threat=THREAT), layers="0")(script, x, torch.zeros(8).long())


def test_as_a_surrogate(pair):
    model, script, x = pair
    y = model(x).argmax(1)
    found = [Transfer(attack=PGD(threat=THREAT, steps=3), surrogate=one)(model, x, y).x_adv for one in (model, script)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_they_come_back_as_they_were(nets, mode):
    x = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    script = torch.jit.script(nets.seeded(build).train())
    dict(script.named_modules())["1"].eval()
    flags = [module.training for module in script.modules()]
    state = {name: value.clone() for name, value in script.state_dict().items()}
    PGD(threat=THREAT, steps=3)(script, x, torch.zeros(8).long(), mode=mode)
    assert [module.training for module in script.modules()] == flags
    assert len(set(flags)) == 2
    for name, value in script.state_dict().items():
        assert torch.equal(value, state[name])
