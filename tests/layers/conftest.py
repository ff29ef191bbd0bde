"""A network that uses activations in every way that occurs, and the same network in NumPy."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.engine.perturbation import Perturbation


class Block(nn.Module):
    """A functional activation, then an in-place residual sum and an in-place activation."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        h = F.silu(self.fc(x))
        h += x
        return torch.relu_(h)


class Mixed(nn.Module):
    """Modules and functions, reused, in place, residual and nested."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(5, 6)
        self.act = nn.ReLU(inplace=True)
        self.features = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ELU(), nn.Linear(6, 6)))
        self.block = Block(6)
        self.fc2 = nn.Linear(6, 4)

    def forward(self, x):
        h = self.act(self.fc1(x))
        h = self.features(h)
        h = self.act(h)
        h = self.block(1.5 * h)
        h = h.sub(0.1).tanh()
        return self.fc2(F.relu(h))


MIXED_LAYERS = ["act", "features.1.0", "act#1", "block.silu", "block.relu", "tanh", "relu"]


def mixed_numpy(net, x):
    """Every activation of `Mixed` for x (N, 5), by name, in float64 NumPy."""
    w = {name: p.detach().double().numpy() for name, p in net.named_parameters()}

    def linear(name, h):
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def relu(h):
        return np.maximum(h, 0)

    out = {}
    h = out["act"] = relu(linear("fc1", x.double().numpy()))
    h = linear("features.0", h)
    h = out["features.1.0"] = np.where(h > 0, h, np.exp(np.minimum(h, 0)) - 1)
    h = out["act#1"] = relu(linear("features.1.1", h))
    h = 1.5 * h
    r = linear("block.fc", h)
    r = out["block.silu"] = r / (1 + np.exp(-r))
    h = out["block.relu"] = relu(r + h)
    h = out["tanh"] = np.tanh(h - 0.1)
    h = out["relu"] = relu(h)
    out["logits"] = linear("fc2", h)
    return out


@dataclass(frozen=True, kw_only=True)
class Shift(Perturbation):
    """A noise of its own: adds a random offset of a given size to every value."""

    size: float = 0.3

    def perturb(self, oracle, x, y, random):
        return x + self.size * (random.uniform(x.shape[1:], x.dtype) - 0.5)


@pytest.fixture
def mixed():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Mixed()


@pytest.fixture
def inputs():
    random = torch.Generator().manual_seed(1)
    return torch.rand(7, 5, generator=random)


@pytest.fixture
def mixed_layers():
    return MIXED_LAYERS


@pytest.fixture
def in_numpy():
    return mixed_numpy


@pytest.fixture
def shift():
    return Shift


def hooks(net):
    """How many hooks a network carries."""
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_always_called) for m in net.modules()
    )


@pytest.fixture
def count_hooks():
    return hooks
