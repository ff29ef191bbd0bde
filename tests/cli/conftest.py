"""The command line in this process, two short runs to work on, and a file of a user's own."""

import contextlib
import io
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from buttress.cli import main

FILE = '''
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from buttress.attacks import Attack
from buttress.audits import Audit, Finding
from buttress.data import Dataset, Split
from buttress.defences import Defence, Loss
from buttress.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Nudge(Attack):
    """A share of the budget along the sign of the gradient."""

    threat: Threat = Threat()
    share: float = 0.5

    def perturb(self, oracle, x, y, random):
        return x + self.share * self.threat.eps * oracle.loss_and_grad(x)[1].sign()


@dataclass(frozen=True, kw_only=True)
class Broken(Nudge):
    def perturb(self, oracle, x, y, random):
        return x + undefined


class Mine(Defence):
    """Cross-entropy on inputs that a nudge has moved, times x."""

    def __init__(self, x: int = 1, nudge: Attack = Nudge()):
        super().__init__()
        self.x, self.nudge = x, nudge

    @property
    def attack(self):
        return self.nudge

    def loss(self, model, batch, at):
        x_adv = self.nudge.craft(model, batch.x, batch.y, ids=batch.ids, seed=at.seed)
        return Loss(self.x * nn.functional.cross_entropy(at.adversarial(x_adv), batch.y))


@dataclass(frozen=True)
class Count(Audit):
    """How many inputs there are."""

    times: int = 1

    def ask(self, subject):
        return Finding("count", "Count", f"There are {self.times * len(subject.y)}.", "good", {"n": len(subject.y)})


@dataclass(frozen=True)
class Duel(Audit):
    """Which attacks it was given, for parameters of a role under any name."""

    rivals: Sequence[Attack] = ()
    opponent: Attack | None = None

    def ask(self, subject):
        settings = [(type(one).__name__, getattr(one, "steps", None)) for one in self.rivals]
        against = None if self.opponent is None else (type(self.opponent).__name__, self.opponent.steps)
        return Finding("duel", "Duel", "Done.", "good", {"rivals": settings, "opponent": against})


@dataclass(frozen=True)
class Tensors(Audit):
    def ask(self, subject):
        return Finding("count", "Count", "Many.", "good", {"y": subject.y})


def data(seed=0, inputs: int = 80):
    random = np.random.default_rng(seed)
    y = np.arange(inputs) % 2
    x = (random.normal(size=(inputs, 2)) + 4 * y[:, None] - 2).astype(np.float32)
    return (x, y), (x[:24] + 0.1, y[:24])


def labels_out_of_range():
    (x, y), (x_test, y_test) = data()
    parts = [(x[:40], y[:40], 0), (x[40:], y[40:] + 5, 100), (x_test, y_test, 200)]
    splits = [Split(torch.tensor(a), torch.tensor(b), torch.arange(i, i + len(b))) for a, b, i in parts]
    return Dataset("mine", *splits, ("a", "b"), None, "made here.")


def net(classes=2, features=2, hidden: int = 8):
    layers = [nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return nn.Sequential(nn.Flatten(), *layers)


class Pair(nn.Module):
    def __init__(self, classes, features):
        super().__init__()
        self.inside = net(classes, features)

    def forward(self, x):
        return self.inside(x), x


def pair(classes=2, features=2):
    return Pair(classes, features)


def probabilities(classes=2, features=2):
    return nn.Sequential(net(classes, features), nn.Softmax(1))


def number():
    return 3


def failing():
    raise ValueError("out of luck")
'''


@dataclass
class Told:
    """What a command said: its exit status, standard output and standard error."""

    status: int
    out: str
    err: str


def _run(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(shlex.split(words) if isinstance(words, str) else words)
    return Told(status, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """No line of it, however slow the machine is: tests hold all that is on standard error against what should be."""
    monkeypatch.setattr("buttress.cli.progress_lines._FIRST", math.inf)


@pytest.fixture(scope="session")
def run():
    return _run


@pytest.fixture
def done():
    """A command that must succeed; what it printed."""

    def call(words):
        told = _run(words)
        assert (told.status, told.err) == (0, ""), told.err
        return told.out

    return call


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with runs of networks on moons and digits, and an audit of each; nothing in it may change."""
    folder = tmp_path_factory.mktemp("runs")
    small = "--epochs 1 --seed 3"
    for words in (
        f"train {folder}/moons --data moons --data-args.samples 200 --data-args.test 60 --model mlp {small}",
        f"train {folder}/digits --data digits --limit 200 --model cnn --model-args.width 4 {small}",
        f"audit {folder}/moons --out {folder}/audit --audits robustness --attacks fgsm --inputs 40",
        f"audit {folder}/digits --out {folder}/audit-digits --audits robustness --attacks fgsm --inputs 20",
    ):
        told = _run(words)
        assert told.status == 0, told.err
    return folder


def _contents(folder):
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path: path.read_bytes() for path in files}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with the user's file in it."""
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here, runs):
    """A command that must be refused in one line with status 2, everything there staying as it was; the line."""

    def call(words):
        before = _contents(here) | _contents(runs)
        told = _run(words)
        assert told.status == 2, told.err
        assert told.err.startswith("buttress: ")
        assert told.err.count("\n") == 1
        assert told.err.endswith("\n")
        assert "<class" not in told.err
        assert "Namespace" not in told.err
        assert len(told.err) < 400
        assert _contents(here) | _contents(runs) == before
        return told.err.removeprefix("buttress: ").rstrip("\n")

    return call
