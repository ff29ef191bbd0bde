"""Parts of a network that do not run as Python: scripted, traced, compiled; they are seen, or it is said where not."""

import warnings

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import FEATURES, Network
from torch import nn


class Part(Network):
    """A part with an activation inside, which is a layer as a whole where it cannot be looked into."""

    def __init__(self, convert, layer, left_out=()):
        super().__init__(6)
        self.layer, self.left_out = layer, frozenset(left_out)
        self.fc, plain = nn.Linear(6, 6), nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh())
        self.first = (plain[0],)  # not a module of this one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates what users still have
            self.part = convert(plain)

    def forward(self, x):
        return self.head(F.relu(self.fc(self.part(x))))

    def by_hand(self, x):
        value = torch.tanh(self.first[0](x))
        return {self.layer: value, "relu": self.fc(value).clamp(min=0)}


def exported(module):
    """The module of an exported program, for any number of inputs."""
    x = torch.rand(3, FEATURES)
    program = torch.export.export(module.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    return program.module()


def traced(module):
    return torch.jit.trace(module, torch.rand(3, FEATURES))


NETWORKS = {
    "scripted part": lambda: Part(torch.jit.script, "part", ["part.*"]),
    "traced part": lambda: Part(traced, "part", ["part.*"]),
    "compiled part": lambda: Part(lambda module: torch.compile(module, backend="eager"), "part.1"),
}
