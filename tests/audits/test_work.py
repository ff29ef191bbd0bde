"""What every registered audit says that it does to a network, against the passes that are counted while it does it."""

import inspect

import pytest
import torch
from torch import nn

from buttress import audits, models, registry, tasks
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.work import Asked
from buttress.data.dataset import Split
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.threat import Threat

MANY = 8  # times as many passes may be announced: a search ends where there is nothing more to find
FEW = 200  # passes of a few inputs, by which an audit finds out what a network is
SMALL = {
    "attack": PGD(threat=Threat(eps=1e-6), steps=3),
    "attacks": [PGD(threat=Threat(eps=1e-6), steps=3)],
    "perturbations": [PGD(threat=Threat(eps=1e-6), steps=3)],
    "unseen": [],
    "inputs": 10,
    "queries": 20,
    "draws": 5,
    "steps": 4,
    "restarts": 2,
    "decisions": 20,
    "corners": 10,
    "tolerance_inputs": 4,
    "patching_inputs": 4,
    "tolerance_steps": 2,
    "bisections": 2,
    "decoder_epochs": 2,
    "svm_epochs": 2,
    "grid": 5,
    "iterations": 5,
    "n0": 5,
    "n": 20,
    "alpha": 0.4,
    "batches": 2,
    "batch": 4,
    "times": [0.5, 1.0],
}
TASKS = {name: registry.task.get(name)() for name in registry.task.names() if name != "denoising"}


class Counted(nn.Module):
    """A network that counts the inputs of its passes, there and back."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        out = self.model(x)
        if isinstance(out, torch.Tensor) and out.requires_grad:
            out.register_hook(lambda grad: self._back(len(x)))
        return out

    def _back(self, count):
        self.backwards += count


def made(name, nets, tmp_path, x):
    """The audit, small."""
    kind, file = registry.audit.get(name), tmp_path / "examples.pt"
    torch.save({"x_adv": x}, file)
    settings = {**SMALL, "file": file, "without": {0: nets.conv(classes=3), 1: nets.conv(classes=3)}}
    known = {key: p.default for key, p in inspect.signature(kind).parameters.items() if key in settings}
    # A number of steps for an audit that has such, not a switch of the same name.
    audit = kind(**{key: settings[key] for key, default in known.items() if not isinstance(default, bool)})
    return resolve_threats(audit, usual=SMALL["attack"].threat)


def networks(nets):
    """Networks of every kind that some audit asks for, each with inputs."""
    random = torch.Generator().manual_seed(1)
    images, points = torch.rand(10, 1, 6, 6, generator=random), torch.rand(10, 2, generator=random)
    larger = torch.rand(8, 1, 12, 12, generator=random)
    yield nets.conv(seed=3), images
    yield nets.seeded(lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))), points
    yield models.create("zerosnet", channels=1, width=4, classes=4, seed=0), larger
    yield models.create("lt-node", channels=1, width=4, classes=4, seed=0, examples=8), larger


def announced(work, classes):
    """The most passes, of all inputs added up."""
    each = [asked.attack.most_passes(classes) * asked.inputs for asked in work.attacks]
    return sum(each, start=work.passes)


def compare(audit, subject, name):
    """Run it, and compare what was counted with what it says."""
    work = audit.work(subject)
    assert work is not None, f"{name} does not say what it does: Audit.work"
    counted, outputs = subject.model, subject.logits[0].numel()
    counted.forwards = counted.backwards = 0
    subject.store.clear()
    audit.ask(subject)
    most = announced(work, outputs)
    assert counted.forwards <= most.forwards + FEW
    assert counted.backwards <= most.backwards + FEW
    assert most.forwards <= MANY * counted.forwards + FEW


def case(nets, name, tmp_path, task):
    """The audit with the first network that it is for; none where it is for none."""
    for model, x in networks(nets):
        counted, audit = Counted(model), made(name, nets, tmp_path, x)
        model.eval()
        y = task.decision(task.read(model(x))).detach()
        if task.classes and name in ("latent-boundary", "homing"):  # which need inputs of two classes
            y = torch.arange(len(x)) % 2
        names = [str(k) for k in range(task.read(model(x)).shape[-1])] if task.classes else None
        training = Split(x, y, torch.arange(len(x)) + 100)
        subject = audits.subject(counted, [(x, y)], classes=names, task=task, training=training)
        try:
            tasks.check_task(audit, task)
            audit.check(subject)
        except UserError:
            continue
        if not audit.not_for(subject):
            return audit, subject
    return None


@pytest.mark.representatives(which=["classification", "regression"])
@pytest.mark.parametrize("which", TASKS)
@pytest.mark.parametrize("name", registry.audit.names())
def test_it_makes_the_passes_that_it_says(nets, name, which, tmp_path):
    found = case(nets, name, tmp_path, TASKS[which])
    if found is not None:
        compare(*found, name)
    else:  # where there are no classes, or no network such as it needs
        assert which != "classification"
        assert registry.audit.get(name).needs_classes or name == "zero-stability"


def test_one_run_serves_all_who_ask_for_the_same():
    """Other settings, another search or other inputs are another run."""
    attack = PGD(threat=Threat(eps=0.1), steps=3)
    same, others = (
        Asked(attack, 10),
        [
            Asked(PGD(threat=Threat(eps=0.1), steps=4), 10),
            Asked(attack, 10, "first"),
            Asked(attack, 9),
        ],
    )
    assert same.key == Asked(PGD(threat=Threat(eps=0.1), steps=3), 10).key
    assert same.key not in [other.key for other in others]
