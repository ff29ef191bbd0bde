"""Small data and networks for training loops of other tools, and packages in the form of fakes."""

import importlib
import importlib.machinery
import sys
import types

import pytest
import torch
from torch import nn

from buttress.integrations import DefenceLoss


@pytest.fixture
def batches():
    """Four batches of six inputs 1x4x4 of three classes."""
    torch.manual_seed(0)
    return [(torch.rand(6, 1, 4, 4), torch.arange(6) % 3) for _ in range(4)]


@pytest.fixture
def small(nets):
    return lambda: nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), 1)


@pytest.fixture
def by_hand(batches):
    """The plain loop that the others must equal."""

    def train(model, defence, epochs=2, accumulated=1):
        objective = DefenceLoss(defence, model, epochs=epochs, steps_per_epoch=len(batches), seed=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for number, (x, y) in enumerate(batches * epochs, start=1):
            model.train()
            (objective(x, y) / accumulated).backward()
            if number % accumulated == 0:
                optimizer.step()
                optimizer.zero_grad()
        return model

    return train


@pytest.fixture
def same_weights():
    """Equal to the last bit."""

    def check(one, other):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert a.equal(b)

    return check


@pytest.fixture
def with_package(monkeypatch):
    """A module of buttress as it is imported beside a package of these contents; None is one that is not there."""

    def load(module, package, contents):
        for name in list(sys.modules):
            if name == package or name.startswith(f"{package}."):
                monkeypatch.delitem(sys.modules, name)
        fake = None
        if contents is not None:
            fake = types.ModuleType(package)
            fake.__spec__ = importlib.machinery.ModuleSpec(package, None)
            vars(fake).update(contents)
        monkeypatch.setitem(sys.modules, package, fake)
        monkeypatch.delitem(sys.modules, module, raising=False)
        found = importlib.import_module(module)
        monkeypatch.delitem(sys.modules, module)  # the next one imports it anew
        return found

    return load
