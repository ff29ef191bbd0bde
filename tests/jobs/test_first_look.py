"""A network that is no better than a guess, or than its record says, is told with what it usually is."""

import dataclasses
import json
import re
import types

import pytest
import torch
from torch import nn

from buttress import models, tasks
from buttress.data.dataset import Dataset, Split
from buttress.jobs.first_look import first_look, recorded
from buttress.models.preprocessing import NAMED

CLASSES, COUNT = 4, 240


class Templates(nn.Module):
    """Right about the images below, as they are: two colours, and two directions in which it gets lighter."""

    def __init__(self, templates):
        super().__init__()
        self.register_buffer("templates", templates)

    def forward(self, x):
        distance = (x[:, None] - self.templates).square().flatten(2).sum(2)
        lost = distance.amin(1, keepdim=True) > 1.5  # nothing that it has ever seen: to it the first class
        return -distance + 1000 * lost * torch.eye(CLASSES)[0]


@pytest.fixture(scope="module")
def made():
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([[0.2, 0.5, 0.8], [0.8, 0.5, 0.2]]).view(2, 3, 1, 1).expand(2, 3, 6, 6)
    ramp = torch.linspace(0.1, 0.9, 6).expand(3, 6, 6)
    templates = torch.cat([colours, ramp[None], ramp.mT[None]])
    y = torch.arange(COUNT) % CLASSES
    x = (templates[y] + 0.05 * torch.randn(COUNT, 3, 6, 6, generator=generator)).clamp(0, 1)
    parts = [Split(x, y, torch.arange(COUNT) + COUNT * i) for i in range(3)]
    return Dataset("templates", *parts, tuple("abcd"), (0, 1), "made in this test."), templates


def right(templates):
    return Templates(templates)


class Expects(nn.Module):
    """A network right of inputs that something else has been done to."""

    def __init__(self, templates, undo):
        super().__init__()
        self.inside, self.undo = Templates(templates), undo

    def forward(self, x):
        return self.inside(self.undo(x))


def channels(values):
    return torch.tensor(values).view(-1, 1, 1)


def statistics(name):
    mean, std = map(channels, NAMED[name])
    return lambda x: x * std + mean


KINDS = {
    "--normalise imagenet": statistics("imagenet"),
    "--normalise 0..255": lambda x: x / 255 if x.max() > 2 else torch.zeros_like(x),
    "channels in the order BGR, x.flip(1), and --normalise none": lambda x: x.flip(1),
    "channels in the order BGR, x.flip(1), and --normalise imagenet": lambda x: statistics("imagenet")(x).flip(1),
    "dark and light exchanged, 1 - x, and --normalise none": lambda x: 1 - x,
    "height and width exchanged, x.mT, and --normalise none": lambda x: x.mT,
}


@pytest.mark.parametrize("words", KINDS)
def test_the_reading_that_it_expects_is_found(words, made):
    dataset, templates = made
    told = first_look(Expects(templates, KINDS[words]), dataset, tasks.classification, ("x.pt (best_acc)", 0.99))
    assert told.startswith("Before anything else: ")
    assert told.endswith(f". With {words} it would be 100.0%.")


def test_a_normalisation_that_should_not_be_is_found(made):
    dataset, templates = made
    twice = models.Normalized(right(templates), [0.9, 0.1, 0.5], [0.1, 0.5, 0.01])
    told = first_look(twice, dataset, tasks.classification, ("x.pt (acc)", 0.99))
    assert told.endswith(". With --normalise none it would be 100.0%.")


def test_another_order_of_the_classes_is_found(made):
    dataset, templates = made
    told = first_look(right(templates.roll(1, 0)), dataset, tasks.classification)
    assert told == (
        "Before anything else: 0.0% of 200 inputs are classified correctly, which one answer for all would be, too "
        "(25.0%). With --classes d,a,b,c, the order of its outputs, it would be 100.0%."
    )


def test_the_order_of_the_classes_is_found_in_whatever_order_the_images_are(made):
    """Alternate images may be of alternate classes: of each class a half must be seen."""
    dataset, templates = made
    for count in (COUNT, 160):
        part = dataset.test.take(torch.arange(count))
        few = dataclasses.replace(dataset, test=Split(*part))
        for shift in (1, 2, 3):
            told = first_look(right(templates.roll(shift, 0)), few, tasks.classification)
            names = ",".join("abcd"[(k - shift) % 4] for k in range(4))
            assert told.endswith(f"With --classes {names}, the order of its outputs, it would be 100.0%.")


def test_of_readings_that_are_alike_the_simplest_is_named(made):
    """Channels in another order is all that this needs; with a normalisation it is as good."""
    dataset, templates = made

    class Lenient(Expects):
        def forward(self, x):
            return super().forward(x) if x.min() >= 0 and x.max() <= 1 else super().forward((x + 1) / 2)

    told = first_look(Lenient(templates, lambda x: x.flip(1)), dataset, tasks.classification, ("x.pt (acc)", 0.99))
    assert told.endswith("With channels in the order BGR, x.flip(1), and --normalise none it would be 100.0%.")


def test_a_probability_that_is_read_as_a_logit_is_found(made):
    dataset, templates = made
    parts = {name: Split(*part.take(torch.arange(len(part))[part.y < 2])) for name, part in dataset.splits.items()}
    two = dataclasses.replace(dataset, **parts, classes=("a", "b"))

    class Sigmoid(nn.Module):
        def forward(self, x):
            distances = (x[:, None] - templates[:2]).square().flatten(2).sum(2)
            return (distances[:, 0] - distances[:, 1]).sigmoid()

    with pytest.warns(UserWarning, match="as a probability would"):
        told = first_look(Sigmoid(), two, tasks.classification)
    assert "With its single output read as a probability (models.FromProbabilities, or take" in told
    assert told.endswith("it would be 100.0%.")


def test_a_network_without_one_answer_is_told_as_that(made):
    dataset, templates = made
    told = first_look(Expects(templates, lambda x: torch.rand_like(x)), dataset, tasks.classification)
    assert "which one answer for all would be, too (25.0%). The network answers differently when" in told


def test_the_order_of_many_classes_is_not_listed():
    y = torch.arange(240) % 24
    parts = [Split(torch.eye(24)[y], y, torch.arange(240) + 240 * i) for i in range(3)]
    dataset = Dataset("many", *parts, tuple(map(str, range(24))), (0, 1), "made in this test.")
    network = nn.Linear(24, 24, bias=False)
    with torch.no_grad():
        network.weight.copy_(9 * torch.eye(24).roll(1, 0))
    told = first_look(network, dataset, tasks.classification)
    assert told.endswith("With its classes in another order (--classes) it would be 100.0%.")


def test_where_nothing_helps_the_usual_reasons_are_listed(made):
    dataset, _ = made
    constant = nn.Linear(108, CLASSES)
    nn.init.zeros_(constant.weight)
    told = first_look(nn.Sequential(nn.Flatten(), constant), dataset, tasks.classification)
    assert "the usual reasons are its mean and std (--normalise), levels of 0..255, the order of the channels" in told
    assert "With " not in told


def test_a_network_that_is_right_is_not_talked_about(made):
    dataset, templates = made
    assert first_look(right(templates), dataset, tasks.classification) == ""
    assert first_look(right(templates), dataset, tasks.classification, ("x.pt (acc)", 0.99)) == ""


def test_a_network_below_its_record_is_told(made):
    dataset, templates = made
    three = right(torch.cat([templates[:3], templates[:1] + 9]))  # of four classes
    assert first_look(three, dataset, tasks.classification) == ""
    told = first_look(three, dataset, tasks.classification, ("x.pt (acc)", 0.999))
    assert "75.0% of 200 inputs are classified correctly, and x.pt (acc) says 99.9%; the usual" in told


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"state_dict": {}, "best_acc": 93.5}, ("best_acc", 0.935)),
        ({"model": {}, "acc": torch.tensor(0.5)}, ("acc", 0.5)),
        ({"model": {}, "metrics": {"val_accuracy": 0.75, "train_accuracy": 0.99}}, ("val_accuracy", 0.75)),
        ({"model": {}, "best_acc1": 76.1, "acc5": 93.0}, ("best_acc1", 0.761)),
        ({"model": {}, "robust_acc": 0.4, "adv_acc": 0.5}, None),
        ({"model": {}, "accumulated": 3, "account": 1.0}, None),
        ({"model": {}, "acc": [0.1, 0.2]}, None),
        ({"weight": torch.ones(2)}, None),
    ],
)
def test_an_accuracy_beside_the_weights_is_read(content, found, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    expected = None if found is None else (f"{tmp_path / 'x.pt'} ({found[0]})", pytest.approx(found[1]))
    assert recorded("net", tmp_path / "x.pt", {}, True) == expected


def test_the_history_of_a_run_is_read_where_it_is_about_these_data(tmp_path):
    (tmp_path / "history.json").write_text(json.dumps([{"clean": 0.2}, {"clean": 0.9}]))
    assert recorded(str(tmp_path), None, {"best_epoch": 2}, True)[1] == 0.9
    assert recorded(str(tmp_path), None, {"best_epoch": 2}, False) is None
    assert recorded("mine.py:net", None, {}, True) is None


def test_the_audit_says_it_first(made, tmp_path, monkeypatch):
    from buttress import data
    from buttress.attacks import FGSM
    from buttress.audits import Robustness
    from buttress.audits.base.finding import read
    from buttress.jobs.audit import audit
    from buttress.jobs.settings import Reporter, Source

    dataset, templates = made
    lines = []

    class Lines(Reporter):
        def line(self, text):
            lines.append(text)

    own = types.ModuleType("own_network_of_a_test")
    own.net = lambda: right(templates.roll(1, 0))
    monkeypatch.setitem(__import__("sys").modules, "own_network_of_a_test", own)
    monkeypatch.setattr(data, "load", lambda *args, **settings: dataset)
    audit(
        "own_network_of_a_test:net",
        out=tmp_path / "out",
        source=Source(data="moons"),
        audits=[Robustness(attacks=[FGSM()])],
        inputs=8,
        reporter=Lines(),
    )
    assert lines[1].startswith("Before anything else: 0.0% of 200 inputs are classified correctly")
    _, facts = read(tmp_path / "out" / "findings.json")
    assert facts["headline"].startswith(lines[1])
    assert facts["settings"]["first look"] == lines[1]


def test_a_slow_network_is_read_otherwise_for_half_a_minute_and_no_longer(made, monkeypatch):
    """The most usual readings come first; how many were left out is told."""
    dataset, templates = made
    passed = iter(range(0, 1000, 10))  # seconds: a reading takes ten
    monkeypatch.setattr("time.monotonic", lambda: next(passed))
    asked = []

    class Slow(Expects):
        def forward(self, x):
            asked.append(len(x))
            return super().forward(x)

    swapped = Slow(templates, lambda x: 0 * x)
    told = first_look(swapped, dataset, tasks.classification, ("x.pt (acc)", 0.99))
    count = int(re.search(r"of (\d+) other readings", told)[1])
    assert count > 10
    assert told.endswith(f" The network is slow: {count - 3} of {count} other readings of the inputs were not tried.")
    assert asked.count(200) < 3 + 5  # three readings, and those before them
