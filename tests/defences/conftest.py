"""Small images, a network with BatchNorm and dropout, and one step of training by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from buttress.data.arrays import from_arrays
from buttress.defences import Batch, StepContext
from buttress.training import Optimiser, fit


def build_images(count=48, classes=4, seed=0):
    """uint8 images 1x6x6 that show their class: one bright quarter each, and noise."""
    random = np.random.default_rng(seed)
    y = np.arange(count + 16) % classes
    x = random.integers(0, 120, (len(y), 1, 6, 6), dtype=np.uint8)
    for image, label in zip(x, y, strict=True):
        image[0, 3 * (label // 2) : 3 * (label // 2) + 3, 3 * (label % 2) : 3 * (label % 2) + 3] += 100
    names = [str(c) for c in range(classes)]
    return from_arrays(
        "quarters",
        (x[:count], y[:count]),
        (x[count:], y[count:]),
        classes=names,
        box=(0.0, 1.0),
        provenance="made in this test.",
        val=12,
    )


@pytest.fixture(scope="session")
def images():
    return build_images()


@pytest.fixture
def network(nets):
    """A maker of networks; equal seeds give equal weights. Layers: 2 and 5 are activations."""

    def make(seed=0, dropout=0.5, dtype=torch.float32, activation=nn.ReLU):
        def build():
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.BatchNorm2d(4),
                activation(),
                nn.Flatten(),
                nn.Linear(144, 8),
                activation(),
                nn.Dropout(dropout),
                nn.Linear(8, 4),
            )

        return nets.seeded(build, seed).to(dtype).train()

    return make


@pytest.fixture
def batch():
    """Eight inputs in [0.2, 0.8], in float64 (only tests that look at the box's edge go nearer to it)."""
    generator = torch.Generator().manual_seed(5)
    x = 0.2 + 0.6 * torch.rand(8, 1, 6, 6, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(8) % 4, torch.arange(100, 108))


@pytest.fixture
def single(batch):
    return Batch(batch.x.float(), batch.y, batch.ids)


@pytest.fixture
def context():
    """A maker of the trainer's side of one step."""
    return lambda model, batch, **place: StepContext(model, batch, **{"index": 3, "seed": 7, **place})


@pytest.fixture
def passes():
    """Count the passes of a module while the context is open."""

    class Runner:
        def __init__(self, model):
            self.modes = []
            self.handle = model.register_forward_pre_hook(lambda module, args: self.modes.append(module.training))

        def __enter__(self):
            return self.modes

        def __exit__(self, *_):
            self.handle.remove()

    return Runner


@pytest.fixture
def same():
    """Equal to the last bit."""

    def check(one, other):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)

    return check


@pytest.fixture
def train(images):
    """Two epochs of four steps each, without validation."""

    def run(model, defence, **options):
        settings = {"epochs": 2, "batch_size": 12, "seed": 3, "optimiser": Optimiser(lr=0.01), "keep": "last"}
        return fit(model, images, defence, validate_with="none", **{**settings, **options})

    return run
