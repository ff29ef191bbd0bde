"""Networks that run other layers in training than in evaluation, or as often as they draw."""

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import FEATURES, Network
from torch import nn


class Depth(Network):
    """Four layers of one width; subclasses say which of them run and how.

    Attributes:
        told: the layers whose names mean the same in both modes.
        counted: the layers whose names count runs that differ between modes.
    """

    told, counted = (), ()

    def __init__(self):
        super().__init__(6)
        self.first = nn.Linear(FEATURES, 6)
        self.parts = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        for k in range(3):
            setattr(self, f"layer{k}", self.parts[k][0])

    def kept(self):
        """In training a layer is skipped in half of all passes."""
        return (torch.rand(3) > 0.5).tolist() if self.training else [True] * 3


class LayerDrop(Depth):
    """Layers with names of their own, dropped at random."""

    told = ("relu", "parts.0.1", "parts.1.1", "parts.2.1")

    def forward(self, x):
        h = F.relu(self.first(x))
        for layer, kept in zip(self.parts, self.kept(), strict=True):
            h = layer(h) if kept else h
        return self.head(h)


class StochasticDepth(Depth):
    """Residual branches that count for nothing in some training passes, but run."""

    told = ("relu", "relu#1", "relu#2")

    def forward(self, x):
        h = self.first(x)
        for layer, kept in zip(self.parts, self.kept(), strict=True):
            h = h + kept * F.relu(layer[0](h))
        return self.head(h)


class DroppedFunctions(Depth):
    """An activation function in a loop that skips some of its runs."""

    told, counted = ("tanh",), ("relu", "relu#1", "relu#2")

    def forward(self, x):
        h = torch.tanh(self.first(x))
        for layer, kept in zip(self.parts, self.kept(), strict=True):
            if kept:
                h = F.relu(layer[0](h))
        return self.head(h)


class OtherLayers(Depth):
    """As many of the layers in both modes, but others, picked by computed names."""

    counted = ("gelu", "gelu#1")

    def forward(self, x):
        h = self.first(x)
        for k in torch.randperm(3)[:2].tolist() if self.training else range(2):
            h = F.gelu(getattr(self, f"layer{k}")(h))
        return self.head(h)


class LongerComprehension(Depth):
    """A comprehension that goes through more in training."""

    told, counted = ("relu",), ("gelu", "gelu#1")

    def forward(self, x):
        h = F.relu(self.first(x))
        return self.head(sum([F.gelu(layer[0](h)) for layer in self.parts[: 2 + self.training]]))


class LongerLoop(Depth):
    """One layer that runs once more in training, where that is of no number."""

    told, counted = ("relu", "parts.1.1"), ("parts.0.1", "parts.0.1#1")

    def forward(self, x):
        h = F.relu(self.first(x))
        for _ in range(2 + self.training):
            h = self.parts[0](h)
        return self.head(self.parts[1](h))


class DeeperRecursion(Depth):
    """A method that calls itself, once more in training: its depth is a place."""

    told = ("relu", "relu#1.0")

    def deeper(self, h, depth):
        h = F.relu(self.parts[0][0](h))
        return self.deeper(h, depth - 1) if depth else h

    def forward(self, x):
        return self.head(self.deeper(self.first(x), 1 + self.training))


class EarlyExit(Depth):
    """Leaves early in evaluation; the layers have names of their own, what a function computes behind them has none."""

    told, counted = ("parts.0.1", "parts.1.1"), ("relu", "relu#1")

    def forward(self, x):
        h = self.first(x)
        for k, name in enumerate(("parts.0", "parts.1", "parts.2")):
            h = F.relu(self.get_submodule(name)(h))
            if k == 1 and not self.training:
                break
        return self.head(h)


class Shared(nn.Module):
    """A block with an activation that it shares with others."""

    def __init__(self, act):
        super().__init__()
        self.fc, self.act = nn.Linear(6, 6), act

    def forward(self, h):
        return F.silu(self.act(self.fc(h)))


class TwoParents(Depth):
    """One activation in two blocks, of which training skips the first."""

    told = ("one.act", "one.silu", "two.act", "two.silu")

    def __init__(self):
        super().__init__()
        act = nn.Sequential(nn.Tanh())
        self.one, self.two = Shared(act), Shared(act)
        self.told = ("one.act.0", "one.silu", "two.act.0", "two.silu")

    def forward(self, x):
        h = self.first(x)
        if not self.training or self.kept()[0]:
            h = self.one(h)
        return self.head(self.two(h))


class AsideFirst(Depth):
    """A block that training calls once more, before its usual place; and an activation of its own in a head aside."""

    told = ("block.0#1", "block.2#1", "relu")

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.ELU(), nn.Linear(6, 6), nn.Tanh())
        self.aside, self.drop, self.norm = nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Dropout(), nn.BatchNorm1d(6)

    def forward(self, x):
        h = self.first(x)
        if self.training:
            self.said = self.aside(self.block(h))
        return self.head(F.relu(self.norm(self.drop(self.block(h)))))


NETWORKS = {
    "layers dropped": LayerDrop,
    "branches dropped": StochasticDepth,
    "functions dropped": DroppedFunctions,
    "other layers": OtherLayers,
    "longer comprehension": LongerComprehension,
    "longer loop": LongerLoop,
    "deeper recursion": DeeperRecursion,
    "early exit": EarlyExit,
    "two parents": TwoParents,
    "aside first": AsideFirst,
}
