"""Values with as many rows as there are inputs by chance, and values of which an input has none."""

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import FEATURES, STEPS, WIDTH, Network, OneLayer, tokens
from torch import nn


class Gate(OneLayer):
    """Six features, each behind a gate that belongs to the network and not to an input."""

    left_out = frozenset({"sigmoid"})

    def __init__(self, *shape):
        super().__init__()
        self.gate = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return self.head(torch.relu(self.fc(x)) * torch.sigmoid(self.gate))

    def rest(self, value, x):
        return self.head(value / (1 + torch.exp(-self.gate.flatten())))


class PositiveWeight(Network):
    """A matrix of six rows made positive."""

    left_out = frozenset({"softplus"})

    def __init__(self):
        super().__init__(6)
        self.weight = nn.Parameter(torch.randn(6, FEATURES) / 5)

    def forward(self, x):
        return self.head(torch.relu(F.linear(x, F.softplus(self.weight)) - 6))

    def by_hand(self, x):
        return {"relu": torch.relu((1 + self.weight.exp()).log() @ x - 6)}


class Positions(Network):
    """A table of positions of the root's own, through an activation, with a row for each of the six steps."""

    left_out = frozenset({"tanh"})

    def __init__(self):
        super().__init__(STEPS * WIDTH)
        self.table, self.fc = nn.Parameter(torch.randn(STEPS, WIDTH)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.head(F.gelu(self.fc(tokens(x) + torch.tanh(self.table))).flatten(1))

    last = "gelu"

    def by_hand(self, x):
        e = (2 * self.table).exp()
        return {"gelu": F.gelu(self.fc(tokens(x) + (e - 1) / (e + 1)))}


class Queries(OneLayer):
    """Learned queries of each input, through an activation, by which its features are weighed."""

    left_out = frozenset({"tanh"})

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(6))

    def forward(self, x):
        return self.head(torch.relu(self.fc(x)) * torch.tanh(self.queries.expand(len(x), -1)))

    def rest(self, value, x):
        e = (2 * self.queries).exp()
        return self.head(value * (e - 1) / (e + 1))


class SqueezeExcite(Network):
    """Channels of a convolution, each scaled by what all of them together say."""

    last = "sigmoid"
    missed = ("mul",)  # a gate is a product of two values, as an activation by hand is

    def __init__(self):
        super().__init__(2)
        self.conv = nn.Conv2d(1, 2, 3)
        self.squeeze, self.excite = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = torch.relu(self.conv(x.view(-1, 1, STEPS, WIDTH)))
        s = torch.sigmoid(self.excite(F.silu(self.squeeze(h.mean((2, 3))))))
        return self.head((h * s[:, :, None, None]).mean((2, 3)))

    def by_hand(self, x):
        patches = tokens(x).unfold(0, 3, 1).unfold(1, 3, 1).reshape(4, 2, 9)
        h = (patches @ self.conv.weight.reshape(2, 9).T + self.conv.bias).clamp(min=0)
        s = self.squeeze(h.mean((0, 1)))
        s = s / (1 + torch.exp(-s))
        return {"relu": h, "silu": s, "sigmoid": 1 / (1 + torch.exp(-self.excite(s)))}

    def rest(self, value, x):
        return self.head(value * self.by_hand(x)["relu"].mean((0, 1)))


class OneNumber(OneLayer):
    """One number for each input, without an axis of features, that scales what it has."""

    last = "sigmoid"
    missed = ("mul",)

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(FEATURES, 1)

    def forward(self, x):
        return self.head(torch.sigmoid(self.score(x).squeeze(1))[:, None] * self.fc(x))

    def by_hand(self, x):
        return {"sigmoid": 1 / (1 + torch.exp(-self.score(x)))}

    def rest(self, value, x):
        return self.head(value * self.fc(x))


class FeaturesFirst(OneLayer):
    """Six features as rows and the inputs as columns: the axis of inputs is the last."""

    def forward(self, x):
        return self.head(torch.relu(self.fc.weight @ x.T + self.fc.bias[:, None]).T)


class Heads(Network):
    """Scores of two heads, folded into the axis of inputs, through a sigmoid."""

    last = "sigmoid"
    missed = ("matmul",)

    def __init__(self):
        super().__init__(STEPS * WIDTH)
        self.project = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x):
        h = self.project(tokens(x)).unflatten(2, (2, WIDTH)).transpose(1, 2).flatten(0, 1)
        h = torch.sigmoid(h @ h.transpose(1, 2)) @ h
        return self.head(h.unflatten(0, (len(x), 2)).sum(1).flatten(1))

    def _heads(self, x):
        return torch.stack(self.project(tokens(x)).chunk(2, dim=1))

    def by_hand(self, x):
        h = self._heads(x)
        return {"sigmoid": 1 / (1 + torch.exp(-(h @ h.transpose(1, 2))))}

    def rest(self, value, x):
        return self.head((value @ self._heads(x)).sum(0).flatten())


class Flattened(OneLayer):
    """All features of all inputs in a row."""

    def forward(self, x):
        return self.head(torch.relu(self.fc(x).flatten()).view(-1, 6))


NETWORKS = {
    "gate": lambda: Gate(6),
    "gate of one row": lambda: Gate(1, 6),
    "positive weight": PositiveWeight,
    "positions": Positions,
    "queries": Queries,
    "squeeze and excitation": SqueezeExcite,
    "one number": OneNumber,
    "features first": FeaturesFirst,
    "heads": Heads,
    "flattened": Flattened,
}
