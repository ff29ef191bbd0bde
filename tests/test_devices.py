"""Everything computes on a device that is not the CPU, also on one without float64, by discovery over all members.

The device is a pretended one, whose tensors mix with the CPU's as little as a GPU's do (``pretended_device.py``); or a
real one, with ``--device cuda``.
"""

import copy
import inspect
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from tests.attacks.members import somewhere
from tests.audits.test_networks_as_they_come import TRAINING, questions
from tests.audits.test_networks_as_they_come import network as small
from tests.defences.conftest import build_images
from tests.defences.test_every_defence import NAMES as DEFENCES
from tests.defences.test_every_defence import make as defence_of
from tests.models.test_every_model import inputs, make
from tests.pretended_device import PretendedDevice
from tests.reporters import Heard
from torch import nn

from buttress import audits, certificates, jobs, layers, models, registry, training
from buttress.attacks import PGD
from buttress.audits.base.evaluation import evaluate
from buttress.audits.privacy.words import ONE_BY_ONE
from buttress.data.dataset import Split
from buttress.engine.machine import Machine
from buttress.errors import UserError
from buttress.jobs.settings import Network, Source, Training
from buttress.threat import Threat
from buttress.threat.row_threat import RowThreat
from buttress.training.averaging import Average
from buttress.training.batches import Batches

THREAT = Threat(eps=0.1)
PGD_2 = PGD(threat=THREAT, steps=2)
KINDS = ["cuda", "mps"]


def pytest_generate_tests(metafunc):
    """Each kind of device is pretended; a real one is what it is."""
    if "place" in metafunc.fixturenames:
        pretended = metafunc.config.getoption("device") == "pretended"
        metafunc.parametrize("place", KINDS if pretended else KINDS[:1], indirect=True)


@pytest.fixture
def place(request, monkeypatch):
    """Where to compute; ``exact`` where it comes to the same bits as on the CPU."""
    real = request.config.getoption("device")
    if real != "pretended":
        yield SimpleNamespace(device=torch.device(real, 0), exact=False)
        return
    with PretendedDevice(request.param) as there:
        there.exact = there.float64
        monkeypatch.setattr(Machine, "kind", property(lambda self: there.device.type))
        monkeypatch.setattr(sys.modules["buttress.training.fit"], "start_fabric", fabric_on(there.device))
        yield there


def fabric_on(device):
    """What starts a Fabric there, which knows real devices only."""

    def start(machine, **options):
        fabric = Fabric(accelerator="cpu", devices=1, **options)
        fabric.strategy._root_device = device
        fabric._accelerator.setup_device = lambda device: None
        return fabric

    return start


def split(count=8):
    x = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Split(x, torch.arange(count) % 4, torch.arange(count))


def everywhere(model):
    return {parameter.device for parameter in model.parameters()}


@pytest.mark.representatives(place=["cuda"])
@pytest.mark.parametrize("name", registry.attack.names())
def test_attacks(nets, place, name):
    data, model, other = split(), nets.conv(), nets.conv(seed=1)
    attack = somewhere(name, other)
    here = attack(model, data.x, data.y, ids=data.ids)
    x, y, ids = (value.to(place.device) for value in (data.x, data.y, data.ids))
    there = somewhere(name, copy.deepcopy(other).to(place.device))(model.to(place.device), x, y, ids=ids)
    assert there.x_adv.device == there.success.device == place.device
    if (threat := getattr(attack, "threat", None)) is not None:  # in which N-FGSM's are not meant to lie
        assert (threat.contains(there.x_adv.cpu(), data.x) | ~threat.contains(here.x_adv, data.x)).all()
    if place.exact:
        assert torch.equal(there.x_adv.cpu(), here.x_adv)
        assert torch.equal(there.success.cpu(), here.success)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("method", [*certificates.names(), "smoothing"])
def test_certificates(nets, place, method, norm):
    data, model, threat = split(4), nets.conv(), Threat(norm=norm, eps=0.05)
    settings = {"n": 100, "n0": 10} if method == "smoothing" else {}
    here = certified(model, data.x, data.y, threat, method, settings)
    there = certified(model.to(place.device), *(v.to(place.device) for v in (data.x, data.y)), threat, method, settings)
    if isinstance(here, str):
        assert there == here
        return
    assert {there.verified.device, there.margin.device, there.x_adv.device} == {place.device}
    torch.testing.assert_close(there.margin.cpu(), here.margin, atol=1e-4, rtol=1e-4)
    if place.exact:
        assert torch.equal(there.verified.cpu(), here.verified)


def certified(model, x, y, threat, method, settings):
    try:
        return certificates.certify(model, x, y, threat=threat, method=method, **settings)
    except UserError as refusal:
        return str(refusal)


@pytest.mark.representatives(place=["cuda"])
@pytest.mark.parametrize("question", list(questions()))
def test_audits(nets, place, question):
    data, model = split(), small(nets)
    expected = verdict(model, data, question)
    found = verdict(model.to(place.device), data, question)
    if place.exact:
        assert found == expected


def verdict(model, data, question):
    try:
        (finding,) = audits.run(model, data, [question], training=TRAINING)
    except UserError as refusal:
        return str(refusal)
    json.dumps(finding.data)
    verdict = finding.verdict.replace(ONE_BY_ONE, "")  # what torch.func does not follow is the pretended device
    return verdict.partition(" Spent: ")[0]  # on a GPU successes are read every few questions


def trained(place, model, defence, **settings):
    settings = {"epochs": 1, "batch_size": 12, "optimiser": training.Optimiser(lr=0.01), **settings}
    return training.fit(model, build_images(), defence, accelerator=place.device.type, **settings)


def leave(free, monkeypatch):
    monkeypatch.setattr("buttress.data.memory.free_memory_of", lambda device: float(free))


@pytest.mark.representatives(place=["cuda"])
def test_training_inputs_that_leave_no_room_on_the_device_stay_on_the_host(nets, place, monkeypatch):
    """They are moved batch by batch, and come to the same bits."""
    data, known = build_images(), trained(place, nets.seeded(network), defence_of("at"))
    for free, where in ((2 * data.train.x.nbytes, place.device), (2 * data.train.x.nbytes - 1, torch.device("cpu"))):
        leave(free, monkeypatch)
        batches = Batches(data, 12, 0, place.device)
        assert batches.x.device == where
        assert {part.device for batch in batches.epoch(1) for part in (batch.x, batch.y, batch.ids)} == {place.device}
    leave(0, monkeypatch)
    assert Batches(data, 12, 0, place.device).y.device == torch.device("cpu")
    moved = trained(place, nets.seeded(network), defence_of("at"))
    for name, value in known.model.state_dict().items():
        assert value.equal(moved.model.state_dict()[name]) or not place.exact


@pytest.mark.representatives(place=["cuda"])
def test_an_audit_that_leaves_no_room_on_the_device_is_refused(nets, place, monkeypatch):
    data, model = split(), nets.conv().to(place.device)
    leave(2 * 2 * data.x.nbytes, monkeypatch)
    assert audits.subject(model, data).x.device == place.device
    leave(2 * 2 * data.x.nbytes - 1, monkeypatch)
    with pytest.raises(UserError, match=rf"^an audit of 8 inputs, .* of the memory of {place.device}, .*--limit N"):
        audits.subject(model, data)


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


@pytest.mark.representatives(place=["cuda"], name=["apart", "at", "free", "gat", "j-sigr", "trades"])
@pytest.mark.parametrize("name", DEFENCES)
def test_defences(nets, place, name):
    result = trained(place, nets.seeded(network), defence_of(name), validate_with=PGD_2)
    assert everywhere(result.model) == {place.device}


@pytest.mark.parametrize("name", training.monitors.names())
def test_monitors(nets, place, name):
    kind = registry.monitor.get(name)
    wanted = {"every": 1, "layers": ["2"], "attack": PGD_2, "patience": 3}
    monitor = kind(**{key: value for key, value in wanted.items() if key in inspect.signature(kind).parameters})
    trained(place, nets.seeded(network), defence_of("at"), monitors=[monitor])


@pytest.mark.parametrize("average", Average.__subclasses__())
def test_averages(nets, place, average):
    trained(place, nets.seeded(network), defence_of("at"), average=average())


@pytest.mark.representatives(place=["cuda"], name=["cifs-cnn", "lt-node", "self-gradient", "snode", "vit", "zerosnet"])
@pytest.mark.parametrize("name", models.names())
def test_models_and_their_layers(place, name):
    model, x, y = make(name), inputs(name), torch.arange(3) % 2
    expected = model(x)
    model, x, y = model.to(place.device), x.to(place.device), y.to(place.device)
    if place.exact:
        assert torch.equal(model(x).cpu(), expected)
    assert PGD_2(model, x, y).x_adv.device == place.device
    layers.sustainability(model, [(x, y)], {"pgd": PGD_2}, "activations")


@pytest.mark.parametrize("task", registry.task.names())
def test_tasks(nets, place, task):
    task, data, model = registry.task.get(task)(), split(), nets.conv()
    y = data.y if task.classes else task.decision(task.read(model(data.x))).detach()
    result = evaluate(model.to(place.device), [(data.x, y)], PGD_2, task=task)
    assert result.inputs == len(data)


@pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN")
@pytest.mark.representatives(place=["cuda"])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers(nets, place, kind):
    """In eval mode, in which cuDNN has no backward pass for them; also where a wrapper holds them."""

    eval_passes = []

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.head = kind(6, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x):
            output = self.inside(x.flatten(1, 2))[0][:, -1]
            if output.requires_grad and not self.inside.training and x.device.type == "cuda":
                eval_passes.append(torch.backends.cudnn.enabled)
            return self.head(output)

    data, model = split(), nets.seeded(Last).to(place.device).eval()
    x, y = data.x.to(place.device), data.y.to(place.device)
    assert PGD_2(model, x, y).x_adv.device == place.device
    for question in ("layers", "saliency", "roughness"):
        verdict(model, data, next(param.values[0] for param in questions() if param.id == question))
    layers.patching(model, [(x, y)], PGD_2, ["inside"])
    trained(place, nets.seeded(Last), defence_of("trades"), validate_with=PGD_2)
    assert not any(eval_passes)
    assert bool(eval_passes) == (place.device.type == "cuda")


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_projections_are_exact(place, norm):
    """Inside with tolerance 0 by float64 arithmetic on the CPU, and the same bits as there."""
    random = torch.Generator().manual_seed(3)
    x = torch.rand(6, 3, 8, 8, generator=random)
    far = x + 0.3 * torch.randn(x.shape, generator=random)
    for threat in (Threat(norm=norm, eps=0.1), Threat(norm=norm, eps=1.7)):
        moved = threat.project(far.to(place.device), x.to(place.device))
        assert moved.device == place.device
        assert threat.contains(moved.cpu(), x).all()
        assert threat.contains(moved, x.to(place.device)).all()
        assert torch.equal(moved.cpu(), threat.project(far, x)) or not hasattr(place, "float64")
        rows = RowThreat.of(threat, torch.linspace(0, 1, 6).to(place.device))
        assert rows.contains(rows.project(far.to(place.device), x.to(place.device)), x.to(place.device)).all()


@pytest.mark.representatives(place=["cuda"])
def test_jobs(place, tmp_path):
    """Train, audit, attack and harden: told first, recorded, and on the device throughout."""
    machine, said = Machine(accelerator=place.device.type), Heard()
    source, short = Source(data="digits", limit=40), Training(epochs=1, batch_size=20)
    settings = {"source": source, "architecture": Network(model="mlp", model_args={"hidden": [8]}), "training": short}
    result = jobs.train(tmp_path / "run", **settings, defence=defence_of("at"), reporter=said)
    assert everywhere(result.model) == {place.device}
    shared = {"inputs": 6, "machine": machine, "reporter": said}
    jobs.audit(str(tmp_path / "run"), out=tmp_path / "audit", **shared)
    jobs.attack(str(tmp_path / "run"), out=tmp_path / "examples", by=PGD_2, **shared)
    first = f"on {place.device.type}"
    assert sum(line.startswith(first) for line in said.lines) == 3
    name = "a pretended GPU" if place.device.type == "cuda" else "MPS"
    for file in ("run/run.json", "audit/findings.json", "examples/examples.json"):
        versions = recorded(json.loads((tmp_path / file).read_text()))
        assert versions["device"] == name or not hasattr(place, "float64")


def recorded(facts):
    return facts["versions"] if "versions" in facts else facts["facts"]["versions"]
