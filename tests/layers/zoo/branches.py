"""Networks with branches that exclude each other, one for training and one for evaluation."""

from types import MappingProxyType

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import FEATURES, Network
from torch import nn


def of_another(layer):
    return MappingProxyType({layer: "computed of f in evaluation and of g in training"})


def elsewhere(layer):
    return MappingProxyType({layer: "another place in the code runs it in training"})


class Branches(Network):
    """A layer for both modes, one for training alone; subclasses call them in branches.

    Attributes:
        told: the layers whose names mean the same in both modes.
        refused: the layers whose names do not, by what the reason says.
        alike: whether the layers that are told have the same values in both modes.
    """

    told, refused, alike = (), MappingProxyType({}), True

    def __init__(self):
        super().__init__(6)
        self.f, self.g = nn.Linear(FEATURES, 6), nn.Linear(FEATURES, 6)
        self.act, self.drop, self.norm = nn.ELU(), nn.Dropout(), nn.BatchNorm1d(6)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())


class AuxiliaryFirst(Branches):
    refused = of_another("relu")

    def forward(self, x):
        if self.training:
            self.said = F.relu(self.g(x))
            return self.head(F.relu(self.f(x)))
        return self.head(F.relu(self.f(x)))


class Ternary(Branches):
    refused = of_another("relu")

    def forward(self, x):
        return self.head(F.relu(self.g(x)) * 0 + F.relu(self.f(x)) if self.training else F.relu(self.f(x)))


class WrittenTwice(Branches):
    told = ("relu", "tanh")

    def forward(self, x):
        h = F.relu(self.f(x)) if self.training else F.relu(input=self.f(x))
        return self.head(torch.tanh(2 * h) if self.training else torch.tanh(h * 2))


class WrittenTwiceBehindDropout(Branches):
    told, alike = ("relu",), False

    def forward(self, x):
        h = self.norm(F.dropout(self.drop(self.f(x)), 0.3, self.training))
        if self.training:
            return self.head(F.relu(h))
        return self.head(F.relu(h))


class Methods(Branches):
    refused = of_another("relu")

    def learn(self, x):
        self.said = F.relu(self.g(x))
        return F.relu(self.f(x))

    def answer(self, x):
        return F.relu(self.f(x))

    def forward(self, x):
        return self.head(self.learn(x) if self.training else self.answer(x))


class OneModule(Branches):
    refused = of_another("act")

    def forward(self, x):
        if self.training:
            self.said = self.act(self.g(x))
            h = self.act(self.f(x))
        else:
            h = self.act(self.f(x))
        return self.head(h)


class InsideOfABlock(Branches):
    """The block has the same parameters, and is given something else."""

    refused = elsewhere("block.1")

    def forward(self, x):
        if self.training:
            self.said = self.block(self.g(x))
            h = self.block(self.f(x))
        else:
            h = self.block(self.f(x))
        return self.head(h)


class ChosenLayer(Branches):
    """One place, which is given the value of another layer."""

    told, refused = ("tanh",), {"relu": "computed of f in evaluation and of g in training"}

    def forward(self, x):
        h = F.relu((self.g if self.training else self.f)(x))
        return self.head(h + torch.tanh(self.f(x)))


class AnotherFactor(Branches):
    refused = elsewhere("relu")

    def forward(self, x):
        if self.training:
            self.said = F.relu(self.f(x) * 2)
            return self.head(F.relu(self.f(x)))
        return self.head(F.relu(self.f(x)))


class Helper(Branches):
    told = ("gelu", "relu")

    def scaled(self, h):
        return F.gelu(3 * h)

    def forward(self, x):
        match "learn" if self.training else "answer":
            case "learn":
                try:
                    h = self.scaled(self.f(x))
                finally:
                    self.said = None
            case _:
                h = self.scaled(self.f(x))
        return self.head(F.relu(h - 1))


class Frozen(Branches):
    """What is frozen has no graph of its own."""

    told, refused = ("tanh",), {"relu": "another place in the code runs it in training"}

    def __init__(self):
        super().__init__()
        for layer in (self.f, self.g):
            layer.requires_grad_(False)

    def forward(self, x):
        if self.training:
            self.said = F.relu(self.g(x))
            h = F.relu(self.f(x))
        else:
            h = F.relu(self.f(x))
        return self.head(torch.tanh(self.block(h)))


class Residual(Branches):
    """A stem that both modes share and a branch written twice."""

    told = ("block.1", "relu", "sigmoid")

    def forward(self, x):
        h = F.relu(self.f(x))
        h = h + self.block(h) if self.training else self.block(h) + h
        return self.head(torch.sigmoid(h))


NETWORKS = {
    "auxiliary first": AuxiliaryFirst,
    "ternary": Ternary,
    "written twice": WrittenTwice,
    "written twice behind dropout": WrittenTwiceBehindDropout,
    "methods": Methods,
    "one module": OneModule,
    "inside of a block": InsideOfABlock,
    "chosen layer": ChosenLayer,
    "another factor": AnotherFactor,
    "helper": Helper,
    "frozen": Frozen,
    "residual": Residual,
}
