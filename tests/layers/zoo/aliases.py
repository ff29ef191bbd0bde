"""One activation under several names in the code, one of its places in training only: a place is a place."""

from functools import partial

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import ThreeLayers
from torch.nn.functional import relu


class Places(ThreeLayers):
    """Three layers, each with an activation; the second one is aside, and in training only."""

    last = "relu#2"

    def __init__(self):
        super().__init__()
        self.function, self.functions, self.part = F.relu, [F.relu, torch.relu], partial(F.relu, inplace=False)

    def by_hand(self, x):
        h = self.one(x).clamp(min=0)
        return {"relu": h, "relu#2": self.three(h).clamp(min=0)}


class Spellings(Places):
    """A method, a function by its own name, and one of another namespace."""

    def forward(self, x):
        h = torch.relu(self.one(x))
        if self.training:
            h = h + 0 * relu(self.two(h))
        return self.head(self.three(h).relu())


class Attribute(Places):
    """A function that is an attribute of the network."""

    def forward(self, x):
        h = self.function(self.one(x))
        if self.training:
            h = h + 0 * self.function(self.two(h))
        return self.head(F.relu(self.three(h)))


class Local(Places):
    """A function under a local name."""

    def forward(self, x):
        act = F.relu
        h = act(self.one(x))
        if self.training:
            h = h + 0 * act(self.two(h))
        return self.head(act(self.three(h)))


class Item(Places):
    """A function in a list, and one with its options filled in."""

    def forward(self, x):
        h = self.functions[0](self.one(x))
        if self.training:
            h = h + 0 * self.functions[1](self.two(h))
        return self.head(self.part(self.three(h)))


class Comprehension(Places):
    """A comprehension, that runs as a function of its own."""

    def forward(self, x):
        (h,) = [F.relu(layer(x)) for layer in (self.one,)]
        if self.training:
            h = h + 0 * sum(F.relu(layer(h)) for layer in (self.two, self.two))
        return self.head(F.relu(self.three(h)))


class Inner(Places):
    """A function that is made anew in each pass."""

    def forward(self, x):
        def act(h, layer):
            return F.relu(layer(h))

        h = act(x, self.one)
        if self.training:
            h = h + 0 * act(h, self.two)
        return self.head(act(h, self.three))


NETWORKS = {
    "spellings": Spellings,
    "attribute": Attribute,
    "local name": Local,
    "item": Item,
    "comprehension": Comprehension,
    "inner function": Inner,
}
