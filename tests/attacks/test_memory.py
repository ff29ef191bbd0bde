"""Peak memory of every registered attack: that of the inputs computed at once, whatever the number of classes."""

import weakref

import pytest
import torch
from tests.attacks.members import somewhere
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from buttress import registry
from buttress.attacks import FAB
from buttress.threat import Threat

THREATS = [Threat(norm=norm, eps=1e-3) for norm in ("linf", "l2")]
LITTLE = {
    "draws": 2,
    "steps": 1,
    "queries": 4,
    "search_steps": 1,
    "samples": 1,
    "population": 4,
    "targets": 1,
    "candidates": None,
}


class Peak(TorchDispatchMode):
    """Counts the bytes of the storages made while it is entered and alive at once; the most is ``peak``."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in self.seen:
                storage = tensor.untyped_storage()
                key, size = id(storage), storage.nbytes()
                self.seen.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, key, size)
        return out

    def _gone(self, key, size):
        self.live -= size
        self.seen.discard(key)


class Sums(nn.Module):
    """Logits are sums of neighbouring features: as many classes as wanted, at no cost."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return x.reshape(len(x), self.classes, -1).sum(2)


def peak_of(name, classes):
    """Of the attack on two inputs, one at a time; what is given to one inside another is FAB."""
    model = Sums(classes)
    x = torch.rand(2, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    attack = somewhere(name, model, THREATS, inner=FAB, models=[model], **LITTLE)
    with Peak() as counted:
        attack(model, x, y, batch_size=1)
    return counted.peak


def test_the_counter_counts():
    with Peak() as counted:
        kept = torch.zeros(1000)
        for _ in range(5):
            _ = (kept + 1)[:10].view(2, 5)
    assert 8000 <= counted.peak <= 8000 + 4000


@pytest.mark.parametrize("name", registry.attack.names())
def test_memory_does_not_grow_with_the_classes(name):
    """The gradients of 40 logits would take 19 MB an input."""
    assert peak_of(name, 40) <= peak_of(name, 5) + 12e6
