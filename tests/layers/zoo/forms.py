"""Values, weights and buffers that are no usual tensors of float32."""

import warnings

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import STEPS, WIDTH, Network, OneLayer, ThreeLayers, tokens
from torch import nn


class SparseActivation(OneLayer):
    """A layer whose activation is a sparse tensor, behind the one that has a value for each input."""

    left_out = frozenset({"tanh"})

    def forward(self, x):
        beside = torch.tanh(x.to_sparse()).to_dense()
        return self.head(torch.relu(self.fc(x)) + 0 * beside[:, :6])


class NestedActivation(Network):
    """An activation of tokens in a nested tensor, of all but the last two of every input."""

    left_out = frozenset({"gelu"})

    def __init__(self):
        super().__init__(6)
        self.embed, self.fc = nn.Linear(WIDTH, 6), nn.Linear(6, 6)

    def forward(self, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of a prototype
            nested = torch.nested.as_nested_tensor([one[:-2] for one in tokens(x)])
            h = F.gelu(self.embed(nested)).to_padded_tensor(0.0)
        return self.head(torch.relu(self.fc(h.mean(1))))

    def by_hand(self, x):
        return {"relu": self.fc(F.gelu(self.embed(tokens(x)[:-2])).mean(0)).clamp(min=0)}


class Graph(Network):
    """Six nodes of four features, which share them along the edges of a graph that is kept in some form."""

    def __init__(self, form):
        super().__init__(STEPS * 5)
        self.fc = nn.Linear(WIDTH, 5)
        self.register_buffer("edges", form(torch.eye(STEPS) + torch.eye(STEPS).roll(1, 0)))

    def forward(self, x):
        h = self.fc(tokens(x)).transpose(0, 1)
        h = (self.edges @ h.flatten(1)).view_as(h)
        return self.head(torch.relu(h).transpose(0, 1).flatten(1))

    def by_hand(self, x):
        h = self.fc(tokens(x))
        return {"relu": (h + h.roll(1, 0)).clamp(min=0)}


class TwoKinds(ThreeLayers):
    """Matrices of float64 among those of float32."""

    def __init__(self, *doubles):
        super().__init__()
        for name in doubles:
            getattr(self, name).double()

    def forward(self, x):
        h = torch.tanh(self.one(x.to(self.one.weight.dtype)))
        h = torch.sigmoid(self.two(h.to(self.two.weight.dtype)))
        return self.head(torch.relu(self.three(h.to(self.three.weight.dtype))).float())

    def by_hand(self, x):
        one = torch.tanh(self.one(x.to(self.one.weight.dtype)))
        two = torch.sigmoid(self.two(one.to(self.two.weight.dtype)))
        return {"tanh": one, "sigmoid": two, "relu": self.three(two.to(self.three.weight.dtype)).clamp(min=0)}

    def rest(self, value, x):
        return self.head(value.float())


class WrittenOut(ThreeLayers):
    """An activation that is written into memory given to it, of a value that is read again."""

    last = "tanh"

    def forward(self, x):
        h = self.one(x)
        out = None if torch.is_grad_enabled() else torch.empty_like(h)  # autograd refuses it
        return self.head(torch.tanh(h, out=out) + h)

    def by_hand(self, x):
        return {"tanh": torch.tanh(self.one(x))}

    def rest(self, value, x):
        return self.head(value + self.one(x))


NETWORKS = {
    "a sparse activation": SparseActivation,
    "a nested activation": NestedActivation,
    "a sparse graph": lambda: Graph(torch.Tensor.to_sparse),
    "float64 late": lambda: TwoKinds("three"),
    "float64 inside": lambda: TwoKinds("two"),
    "float64 first": lambda: TwoKinds("one"),
    "written into memory given to it": WrittenOut,
}
