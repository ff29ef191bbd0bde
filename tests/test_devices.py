"""Everything works on a device that is not the CPU, also on one without float64, by discovery over all members.

The device is a pretended one, whose tensors are mixed with the CPU's as little as a GPU's may be; see
``pretended_device.py``.
"""

import copy
import inspect
import json
import sys

import pytest
import torch
from lightning_fabric import Fabric
from tests.attacks.members import somewhere
from tests.audits.test_every_audit_under_every_task import make as audit_of
from tests.audits.test_networks_as_they_come import network as small
from tests.audits.test_networks_as_they_come import questions
from tests.defences.conftest import build_images
from tests.defences.test_every_defence import ALL as DEFENCES
from tests.defences.test_every_defence import make as defence_of
from tests.models.test_every_model import inputs, make
from tests.pretended_device import PretendedDevice
from torch import nn

from buttress import audits, layers, models, registry, report, tasks
from buttress.attacks import PGD
from buttress.audits.base.evaluation import evaluate
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.layers import lipschitz
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training.monitors import names as monitor_names

KINDS = ["cuda", "mps"]
every_kind = pytest.mark.parametrize("kind", KINDS)
THREAT = Threat(eps=0.1)
PGD_2 = PGD(threat=THREAT, steps=2)


def split(count=8):
    x = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Split(x, torch.arange(count) % 4, torch.arange(count))


@pytest.fixture(params=KINDS)
def place(request):
    with PretendedDevice(request.param) as there:
        yield there


@pytest.mark.parametrize("name", registry.attack.names())
def test_attacks(nets, place, name):
    data, model, other = split(), nets.conv(), nets.conv(seed=1)
    here = somewhere(name, other)(model, data.x, data.y, ids=data.ids)
    x, y, ids = (value.to(place.device) for value in (data.x, data.y, data.ids))
    there = somewhere(name, copy.deepcopy(other).to(place.device))(model.to(place.device), x, y, ids=ids)
    assert there.x_adv.device == place.device
    if place.float64:
        assert torch.equal(there.x_adv.cpu(), here.x_adv)
        assert torch.equal(there.success.cpu(), here.success)


@pytest.mark.parametrize("question", list(questions()))
def test_audits(nets, place, question):
    data, model = split(), small(nets)
    expected = verdict(model, data, question)
    found = verdict(model.to(place.device), data, question)
    if place.float64:
        assert found == expected


def verdict(model, data, question):
    try:
        (finding,) = audits.run(model, data, [question])
    except UserError as refusal:
        return str(refusal)
    json.dumps(finding.data)
    return finding.verdict


def trained(place, monkeypatch, model, data, defence, **settings):
    def start(*_, **options):
        fabric = Fabric(accelerator="cpu", devices=1, **options)
        fabric.strategy._root_device = place.device
        return fabric

    monkeypatch.setattr(sys.modules["buttress.training.fit"], "start_fabric", start)
    settings = {"epochs": 1, "batch_size": 12, "optimiser": Optimiser(lr=0.01), **settings}
    return fit(model, data, defence, **settings)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    )


@pytest.mark.parametrize("name", [name for name in DEFENCES if name != "snode-ncg"])
def test_defences(nets, place, name, monkeypatch):
    model, data = nets.seeded(network), build_images()
    result = trained(place, monkeypatch, model, data, defence_of(name), validate_with=PGD_2)
    assert {parameter.device for parameter in result.model.parameters()} == {place.device}


@pytest.mark.parametrize("name", monitor_names())
def test_monitors(nets, place, name, monkeypatch):
    kind = registry.monitor.get(name)
    wanted = {"every": 1, "layers": ["2"], "attack": PGD_2, "patience": 3}
    monitor = kind(**{k: v for k, v in wanted.items() if k in inspect.signature(kind).parameters})
    trained(place, monkeypatch, nets.seeded(network), build_images(), defence_of("at"), monitors=[monitor])


@pytest.mark.parametrize("name", models.names())
def test_models(place, name):
    model, x = make(name), inputs(name)
    y = torch.arange(3) % 2
    expected = model(x)
    model, x, y = model.to(place.device), x.to(place.device), y.to(place.device)
    assert torch.equal(model(x).cpu(), expected)
    result = PGD(threat=THREAT, steps=2, restarts=1)(model, x, y)
    assert result.x_adv.device == place.device
    layers.tolerance(model, [(x, y)], PGD_2, "activations")
    layers.sustainability(model, [(x, y)], {"pgd": PGD_2}, "activations")
    layers.patching(model, [(x, y)], PGD_2, "activations")


@pytest.mark.parametrize("task", registry.task.names())
def test_tasks(nets, place, task):
    task = registry.task.get(task)()
    data, model = split(), nets.conv()
    if task.classes:
        y = data.y
    else:
        y = task.decision(task.read(model(data.x))).detach()
    evaluate(model.to(place.device), [(data.x, y)], PGD_2, task=task)
