"""Every registered model goes through the whole house: trained, resumed, attacked, audited and kept."""

import functools
import inspect
import json
import os
import signal

import numpy as np
import pytest
import torch

from buttress import audits, models, registry
from buttress.attacks import PGD, Gaussian
from buttress.data.arrays import from_arrays
from buttress.defences import AdversarialTraining, Standard
from buttress.jobs.analysed_layers import analysed_layers
from buttress.jobs.fit_to_data import create_for
from buttress.models.preprocessing import Statistics
from buttress.threat import Threat
from buttress.training import Interrupted, fit, load

# Values that make any network quick, wherever its factory has an option of that name; then those of single names.
SIZES = {"width": 4, "depth": 1, "heads": 2, "blocks": 2, "extractor": "small", "step": 0.5, "resolution": 3}
OWN = {
    "cifs-wrn": {"depth": 10, "width": 1},
    "vgg19": {"width": 1 / 16},
    "wrn": {"depth": 10, "width": 1},
}
NAMES = models.names()
every_model = pytest.mark.parametrize("name", NAMES)


@functools.cache
def data(name):
    """24 inputs of three classes to train on: points, or images 1x16x16 or of the model's own size, where small."""
    random = np.random.default_rng(0)
    y = np.arange(40) % 3
    parameters = inspect.signature(registry.model.get(name)).parameters
    if "features" in parameters:
        x = random.normal(size=(40, 2)).astype(np.float32) + 2 * np.eye(3, 2, dtype=np.float32)[y]
        box = None
    else:
        side = parameters["image_size"].default if "image_size" in parameters else 16
        side = side if side <= 28 else 16
        x = random.integers(0, 100, (40, 1, side, side), dtype=np.uint8)
        for image, label in zip(x, y, strict=True):
            image[0, :, 2 * label :: 6] += 150
        box = (0.0, 1.0)
    parts = (x[:28], y[:28]), (x[28:], y[28:])
    return from_arrays("stripes", *parts, classes=list("abc"), box=box, provenance="made in this test.", val=4)


def make(name):
    known = inspect.signature(registry.model.get(name)).parameters
    options = {key: value for key, value in SIZES.items() if key in known} | OWN.get(name, {})
    dataset = data(name)
    own = Statistics(dataset.mean, dataset.std) if len(dataset.shape) == 3 else None
    return create_for(dataset, name, options, own, seed=0)


def train(name, out, defence, **more):
    """One epoch of two batches."""
    settings = {"epochs": 1, "batch_size": 12, "seed": 3, "keep": "last", "validate_with": "none", **more}
    return fit(make(name), data(name), defence, out=out, **settings).model


def stop(done, figures):
    """After the first of two steps."""
    if done < 1:
        os.kill(os.getpid(), signal.SIGTERM)


def pgd(name, steps=2):
    return PGD(threat=Threat(eps=8 / 255, box=data(name).box), steps=steps)


def few(name, count=6):
    x, y, ids = data(name).test.take(torch.arange(count))
    return x, y, ids


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network after an epoch of standard training, and its run's folder; each is trained once."""

    @functools.cache
    def find(name):
        folder = tmp_path_factory.mktemp("runs") / name
        return train(name, folder, Standard()), folder

    return find


@every_model
def test_it_is_trained_kept_and_loaded(name, trained):
    model, folder = trained(name)
    again, x = load(folder), few(name)[0]
    start = make(name).state_dict()
    assert any(not torch.equal(value, start[key]) for key, value in model.named_parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(again(x), logits)
    assert logits.shape == (6, 3)


@pytest.mark.representatives(name=["cifs-cnn", "lt-node", "mlp", "resnet18", "snode"])
@every_model
def test_adversarial_training_stopped_and_resumed_is_as_if_never_stopped(name, tmp_path):
    defence = AdversarialTraining(pgd(name, steps=1))
    whole = train(name, None, defence)
    with pytest.raises(Interrupted):
        train(name, tmp_path / "run", defence, progress=stop)
    assert same(train(name, tmp_path / "run", defence, resume=True), whole)
    assert not same(whole, make(name))


@pytest.mark.representatives(name=["cifs-cnn", "cnn", "lt-node", "odenet", "resnet18", "snode", "vit", "zerosnet"])
@every_model
def test_verdicts_are_the_same_with_a_twin(name, trained):
    """Or it has none, which is told by the precision."""
    model, (x, y, ids) = trained(name)[0], few(name)
    plain = pgd(name)(model, x, y, ids=ids)
    fast = {precision: pgd(name)(model, x, y, ids=ids, precision=precision) for precision in ("folded", "twin")}
    assert plain.precision == "fp32"
    for precision, found in fast.items():
        assert found.precision in (precision, "fp32")
        assert torch.equal(found.success, plain.success)
        with torch.no_grad():
            assert torch.equal(found.success, model(found.x_adv).argmax(1) != y)
        assert pgd(name).threat.contains(found.x_adv, x).all()


@pytest.mark.representatives(name=["lt-node", "mlp", "vit"])
@every_model
def test_it_is_audited(name, trained):
    model, kinds = trained(name)[0], ["robustness", "masking"]
    questions = [
        audits.Robustness(attacks=[pgd(name, steps=1)]),
        audits.Masking(attack=pgd(name), inputs=2, queries=2, draws=1),
    ]
    if layers := analysed_layers(model, data(name)).names:
        cheap = {"tolerance_inputs": 2, "tolerance_steps": 1, "bisections": 1}
        noise = Gaussian(std=0.1, box=data(name).box)
        questions.append(audits.Layers(perturbations=[noise], layers=[layers[0], layers[-1]], **cheap))
        kinds.append("layers")
    found = audits.run(model, data(name).test, questions, limit=6)
    assert [finding.kind for finding in found] == kinds
    assert all(finding.verdict for finding in found)
    assert json.loads(json.dumps(found[0].data))["inputs"] == 6
