"""Small data, small networks and short trainings; a stop at any step; a run's whole state."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from buttress import models
from buttress.attacks.gradient.pgd import PGD
from buttress.data.arrays import from_arrays
from buttress.data.augment import Augment
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training import checkpoint as files


@pytest.fixture(scope="session")
def points():
    """Two moons: 60 inputs, five batches of 12."""
    return moons(samples=60, val=20, test=4)


@pytest.fixture(scope="session")
def images():
    """36 uint8 images 1x6x6 of four classes, augmented: three batches of 12."""
    random = np.random.default_rng(0)
    y = np.arange(64) % 4
    x = random.integers(0, 120, (64, 1, 6, 6), dtype=np.uint8)
    for image, label in zip(x, y, strict=True):
        image[0, 3 * (label // 2) : 3 * (label // 2) + 3, 3 * (label % 2) : 3 * (label % 2) + 3] += 100
    return from_arrays(
        "quarters",
        (x[:48], y[:48]),
        (x[48:], y[48:]),
        classes=list("abcd"),
        box=(0.0, 1.0),
        provenance="made in this test.",
        val=12,
        augment=Augment(pad=1, flip=False),
    )


@pytest.fixture
def mlp():
    """Made by buttress, so a run can be loaded by itself."""
    return lambda seed=0: models.create("mlp", hidden=[8], seed=seed)


@pytest.fixture
def network(nets):
    """Of the user's own, with BatchNorm and dropout."""

    def build():
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(144, 4),
        )

    return lambda seed=0: nets.seeded(build, seed)


@pytest.fixture
def attack():
    return PGD(threat=Threat(eps=0.1, box=None), steps=2)


@pytest.fixture
def train(attack):
    """Three epochs of batches of 12, validated under PGD-2."""

    def run(model, data, defence=None, **options):
        settings = {"epochs": 3, "batch_size": 12, "seed": 3, "optimiser": Optimiser(lr=0.01), "validate_with": attack}
        return fit(model, data, defence or AdversarialTraining(attack), **{**settings, **options})

    return run


@pytest.fixture
def stop_at():
    """A watcher of training that asks it to stop after so many steps."""

    def make(step, number=signal.SIGTERM):
        seen = set()

        def progress(done, figures):
            news = done not in seen
            seen.add(done)
            if news and len(seen) == step:
                os.kill(os.getpid(), number)

        return progress

    return make


@pytest.fixture
def state_of():
    """All that the newest checkpoint of a run holds."""
    return lambda folder: files.load(files.latest(folder / "checkpoints"))


@pytest.fixture
def same():
    """Equal to the last bit."""

    def check(one, other):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)

    return check


@pytest.fixture
def twin():
    return copy.deepcopy
