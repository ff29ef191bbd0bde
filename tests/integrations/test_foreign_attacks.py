"""Attacks of other libraries, by small fakes of how they are called; the real ones: benchmarks/foreign_attacks.py."""

import random
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from buttress import audits, models
from buttress.attacks import FGSM
from buttress.audits.robustness import Robustness
from buttress.errors import UserError
from buttress.integrations import ARTAttack, FoolboxAttack, TorchAttack
from buttress.tasks import Regression
from buttress.threat import Threat

THREAT = Threat(eps=0.1)
SHARED = np.random.mtrand._rand  # what np.random.rand and its like draw from


def step(network, x, y, eps):
    """One step of eps along the sign of the gradient."""
    x = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    return (x + eps * x.grad.sign()).detach()


class Stepping:
    """As an attack of torchattacks: made from a network, called on inputs and labels."""

    def __init__(self, network, eps):
        assert not network.training
        assert next(network.parameters()).device.type == "cpu"
        self.network, self.eps = network, eps

    def __call__(self, x, y):
        return step(self.network, x, y, self.eps)


class Wrapped:
    """As foolbox's PyTorchModel."""

    def __init__(self, network, bounds, device):
        assert bounds == (0.0, 1.0)
        self.network = network


def foolbox_step(wrapped, x, criterion, *, epsilons):
    points = step(wrapped.network, x, criterion.labels, epsilons)
    return points, points.clamp(0, 1), None


class Classifier:
    """As ART's PyTorchClassifier."""

    def __init__(self, model, loss, input_shape, nb_classes, clip_values, device_type):
        assert (input_shape, nb_classes, clip_values, device_type) == ((6,), 3, (0.0, 1.0), "cpu")
        self.model = model


def art_step(classifier, eps):
    def generate(x, y):
        return step(classifier.model, torch.from_numpy(x), torch.from_numpy(y), eps).numpy()

    return SimpleNamespace(generate=generate)


@pytest.fixture
def fakes(monkeypatch):
    foolbox = ModuleType("foolbox")
    foolbox.PyTorchModel = Wrapped
    foolbox.criteria = SimpleNamespace(Misclassification=lambda labels: SimpleNamespace(labels=labels))
    monkeypatch.setitem(sys.modules, "foolbox", foolbox)
    art = ModuleType("art.estimators.classification")
    art.PyTorchClassifier = Classifier
    for name in ("art", "art.estimators"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, art.__name__, art)


ATTACKS = {
    "torchattacks": TorchAttack(make=lambda net, threat: Stepping(net, threat.eps), threat=THREAT, name="step"),
    "foolbox": FoolboxAttack(make=lambda net, threat: foolbox_step, threat=THREAT, name="step"),
    "ART": ARTAttack(make=lambda net, threat: art_step(net, threat.eps), threat=THREAT, name="step"),
}


@pytest.fixture
def problem():
    torch.manual_seed(0)
    x = torch.rand(20, 6)
    model = models.create("mlp", features=6, classes=3, seed=0).eval()
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("library", ATTACKS)
def test_it_finds_what_the_same_step_of_ours_finds(library, fakes, problem, nets):
    model, x, y = problem
    before = nets.state(model)
    result = ATTACKS[library](model, x, y)
    nets.assert_state(model, before)
    own = FGSM(threat=THREAT)(model, x, y)
    assert result.x_adv.equal(own.x_adv)
    assert result.success.equal(own.success)
    assert result.backwards.tolist() == [1] * 20
    assert ATTACKS[library].label() == f"{library} step"


@pytest.mark.parametrize("library", ATTACKS)
def test_an_audit_gives_it_each_budget(library, fakes, problem):
    model, x, y = problem
    [finding] = audits.run(model, [(x, y)], [Robustness(attacks=[ATTACKS[library]], eps=[0.02, 0.1], reuse=False)])
    for point in finding.data["worst"][1:]:
        attack = FGSM(threat=Threat(eps=point["eps"]))
        assert point["accuracy"] == pytest.approx(1 - attack(model, x, y).success.float().mean().item())


def test_gradients_of_all_classes_are_those_of_the_network(problem):
    """As DeepFool and JSMA take them: back through one pass once for each class."""
    model, x, y = problem
    jacobians = []

    def make(net, threat):
        def attack(x, y):
            x = x.clone().requires_grad_()
            logits = net(x)
            rows = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] for k in range(3)]
            jacobians.append(torch.stack(rows, 1))
            return x.detach()

        return attack

    result = TorchAttack(make=make, threat=THREAT)(model, x, y)
    assert jacobians[0].allclose(torch.func.vmap(torch.func.jacrev(model.forward))(x[:, None])[:, 0, :, 0], atol=1e-6)
    assert result.backwards.tolist() == [3] * 20


def test_draws_follow_the_seed_and_leave_no_trace(problem):
    model, x, y = problem

    def make(net, threat):
        return lambda x, y: x + 0.05 * (torch.rand_like(x) + SHARED.rand() + random.random() - 1.5)

    attack = TorchAttack(make=make, threat=THREAT)
    states = torch.get_rng_state(), SHARED.get_state()[1].tolist(), random.getstate()
    first, again, other = (attack(model, x, y, seed=seed).x_adv for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(states[0])
    assert (SHARED.get_state()[1].tolist(), random.getstate()) == states[1:]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (lambda x: x[:3], r"torchattacks must return inputs of shape \(20, 6\); got shape \(3, 6\)"),
        (lambda x: None, r"got a NoneType"),
        (lambda x: x / 0, r"returned values that are no numbers"),
    ],
)
def test_results_that_mean_nothing_are_refused(found, line, problem):
    attack = TorchAttack(make=lambda net, threat: lambda x, y: found(x), threat=THREAT)
    with pytest.raises(UserError, match=line):
        attack(*problem)


def test_what_it_cannot_do_is_said(problem, monkeypatch):
    model, x, y = problem
    with pytest.raises(UserError, match="torchattacks step is run untargeted"):
        ATTACKS["torchattacks"](model, x, y, target=1)
    wide = TorchAttack(make=lambda net, threat: None, threat=Threat(eps=0.1, box=(-1, 1)))
    with pytest.raises(UserError, match=r"takes inputs in \[0, 1\]; got a box of -1 to 1"):
        wide(model, x, y)
    open_box = TorchAttack(make=lambda net, threat: None, threat=Threat(eps=0.1, box=None))
    with pytest.raises(UserError, match="needs one box for all features"):
        open_box(model, x, y)
    with pytest.raises(UserError, match="classes"):
        ATTACKS["torchattacks"](model, x, torch.rand(20, 3), task=Regression(tolerance=0.1))
    for name in ("foolbox", "art"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="foolbox step needs foolbox: pip install foolbox"):
        ATTACKS["foolbox"](model, x, y)
    with pytest.raises(UserError, match="ART step needs adversarial-robustness-toolbox: pip install"):
        ATTACKS["ART"](model, x, y)
