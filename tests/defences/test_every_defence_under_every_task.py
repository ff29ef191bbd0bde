"""Every registered defence under every registered task: it trains, or it refuses by name before it prepares."""

import inspect
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import registry, tasks
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Split
from buttress.defences import TRADES, AdversarialTraining, Batch
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import FAWA, fit, read_facts
from buttress.training.monitors import CatastrophicOverfitting

TASKS = {name: registry.task.get(name)() for name in registry.task.names()}
NAMES = [name for name in registry.defence.names() if name != "snode-ncg"]  # for one kind of network only


def make(name):
    """The member with short attacks."""
    member, attack = registry.defence.get(name), PGD(threat=Threat(), steps=2)
    wanted = {"steps": 2, "attack": attack, "base": AdversarialTraining(attack), "epochs": 1, "members": 1}
    return member(**{key: value for key, value in wanted.items() if key in inspect.signature(member).parameters})


def relabelled(images, task):
    """The images with another truth: four labels, or one value that tells the class."""

    def change(split):
        x = split.take(torch.arange(len(split)))[0]
        y = split.y
        if task.label() == "multi-label":
            y = torch.stack([y >= 2, y % 2 == 1, y == 0, y != 3], 1).long()
        elif task.label() == "regression":
            y = F.one_hot(y, 4).float()
        return Split(x, y, split.ids)

    return replace(images, **{name: change(split) for name, split in images.splits.items()})


@pytest.mark.representatives(which=["multi-label", "regression"])
@pytest.mark.parametrize("which", [name for name in TASKS if name not in ("classification", "denoising")])
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_or_names_itself_and_what_to_use(name, which, images, network, nets, tmp_path):
    task, defence, model = TASKS[which], make(name), network(dropout=0.0)
    data, weights = relabelled(images, task), nets.state(model)
    length = max([1, *(int(getattr(defence, name)) + 1 for name in defence.begins)])
    settings = {"epochs": length, "batch_size": 24, "task": task, "out": tmp_path / "run"}
    if defence.needs_classes:
        said = rf"^{re.escape(defence.label())} needs classes, which {which} has not: use .+$"
        with pytest.raises(UserError, match=said):
            fit(model, data, defence, **settings)
        nets.assert_state(model, weights)
        assert not (tmp_path / "run").exists()
        return
    trained = fit(model, data, defence, **settings)
    assert trained.history[-1]["loss"] == trained.history[-1]["loss"]
    assert 0 <= trained.history[-1]["clean"] <= 1
    assert tasks.task_of(read_facts(tmp_path / "run")) == task


def test_images_are_restored(images):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    splits = {n: Split(x := s.take(torch.arange(len(s)))[0], x, s.ids) for n, s in images.splits.items()}
    flat = {n: Split(s.x, s.y.flatten(1), s.ids) for n, s in splits.items()}
    with pytest.raises(UserError, match=r"^the restored images are \(\d+, 1, 6, 6\), the clean ones \(\d+, 36\)$"):
        fit(model, replace(images, **flat, classes=tuple(map(str, range(36)))), task=tasks.Denoising(), epochs=1)
    history = fit(model, replace(images, **splits), make("at"), task=tasks.Denoising(floor=5.0), epochs=5).history
    assert history[-1]["loss"] < history[0]["loss"]


def step(task, y, context, defence, outputs=4):
    """The loss of one step on a linear network, its clean and its perturbed output."""
    x = 0.2 + 0.6 * torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, outputs))
    torch.nn.init.normal_(model[1].weight, generator=torch.Generator().manual_seed(1))
    place = context(model, Batch(x, y(model(x).detach()), torch.arange(8)), task=task)
    loss = defence.loss(model, place.batch, place)
    return loss, place.batch.y, place.passes["clean"].logits, place.passes["adversarial"].logits


def test_trades_with_several_labels_is_of_bernoulli_distributions(context):
    defence = TRADES(threat=Threat(eps=0.1), steps=3, beta=2.0)
    loss, y, clean, moved = step(tasks.MultiLabel(), lambda z: (z > 0).long(), context, defence)
    natural = F.binary_cross_entropy_with_logits(clean, y.float(), reduction="none").sum(1).mean()
    one, other = (torch.distributions.Bernoulli(logits=logits) for logits in (clean, moved))
    boundary = torch.distributions.kl_divergence(one, other).sum(1).mean()
    torch.testing.assert_close(loss.value, natural + 2 * boundary)
    assert boundary > 0.01


def test_trades_of_values_is_their_squared_difference(context):
    defence = TRADES(threat=Threat(eps=0.1), steps=3, beta=2.0)
    loss, y, clean, moved = step(tasks.Regression(), lambda z: z[:, 0] + 1, context, defence, outputs=1)
    natural, boundary = (clean[:, 0] - y).square().mean(), (moved - clean).square().mean()
    torch.testing.assert_close(loss.value, natural + 2 * boundary)
    assert boundary > 0.01


def test_ordered_classes_are_trained_by_the_cross_entropy_of_each():
    output, y = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 5
    for task in (tasks.Ordinal(tolerance=1), tasks.classification):
        assert torch.equal(task.objective(output, y), F.cross_entropy(output, y))


def test_an_average_that_looks_at_classes_is_refused(images, network):
    with pytest.raises(UserError, match=r"^FAWA needs classes, which multi-label has not: use ema or swa$"):
        fit(network(), images, task=tasks.MultiLabel(), average=FAWA())


def test_a_monitor_follows_the_task(images, network):
    task = tasks.MultiLabel()
    monitor = CatastrophicOverfitting(best_on_train=True, diagnostics=True, every=1, inputs=8)
    trained = fit(network(), relabelled(images, task), make("at"), task=task, epochs=1, monitors=[monitor])
    assert 0 <= trained.history[-1]["train_fgsm"] <= 1
