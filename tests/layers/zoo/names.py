"""Activations called at several places, by several ways, several times: each place has one name."""

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import FEATURES, STEPS, WIDTH, Network, ThreeLayers, tokens
from torch import nn


class AuxiliaryHead(ThreeLayers):
    """A head that runs in training only; before, in and after it an activation at the root."""

    last = "relu#2"

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Linear(6, 3)

    def forward(self, x):
        h = F.relu(self.one(x))
        aside = self.auxiliary(F.relu(self.two(h))) if self.training else 0
        return self.head(F.relu(self.three(h))) + 0.3 * aside

    def by_hand(self, x):
        h = self.one(x).clamp(min=0)
        return {"relu": h, "relu#2": self.three(h).clamp(min=0)}


class Helpers(ThreeLayers):
    """Activations in a method and in a function of the network's own."""

    last = "tanh"

    def forward(self, x):
        return self.head(self._last(_gated(F.relu(self.one(x)), self.two)))

    def _last(self, h):
        return torch.tanh(self.three(h))

    def by_hand(self, x):
        h = self.one(x).clamp(min=0)
        gated = F.silu(self.two(h))
        return {"relu": h, "silu": gated, "tanh": torch.tanh(self.three(gated))}


def _gated(h, layer):
    return F.silu(layer(h))


class OnlyAHelper(ThreeLayers):
    """A forward that does nothing but to call a method."""

    last = "relu#1"

    def forward(self, x):
        return self.forward_impl(x)

    def forward_impl(self, x):
        return self.head(F.relu(self.two(F.relu(self.one(x)))))

    def by_hand(self, x):
        h = self.one(x).clamp(min=0)
        return {"relu": h, "relu#1": self.two(h).clamp(min=0)}


class Loop(ThreeLayers):
    """One place that runs three times, and another that runs once."""

    last = "relu#1"

    def forward(self, x):
        h = self.one(x)
        for _ in range(3):
            h = self.two(F.relu(h))
        return self.head(F.relu(h))

    def by_hand(self, x):
        h, out = self.one(x), {}
        for name in ("relu", "relu#0.1", "relu#0.2"):
            out[name] = h.clamp(min=0)
            h = self.two(out[name])
        return {**out, "relu#1": h.clamp(min=0)}


class LoopAlone(ThreeLayers):
    """One place that runs three times."""

    last = "relu#2"

    def forward(self, x):
        h = self.one(x)
        for layer in (self.two, self.three, self.head):
            h = layer(torch.relu(h))
        return h

    def by_hand(self, x):
        first = self.one(x).clamp(min=0)
        second = self.two(first).clamp(min=0)
        return {"relu": first, "relu#1": second, "relu#2": self.three(second).clamp(min=0)}


class SharedModule(ThreeLayers):
    """One module called at two places, one of them in training only."""

    last = "act#2"

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        h = self.act(self.one(x))
        h = h + self.act(h) * 0 if self.training else h
        return self.head(self.act(self.two(h)))

    def by_hand(self, x):
        h = self.one(x).clamp(min=0)
        return {"act": h, "act#2": self.two(h).clamp(min=0)}


class SharedBlock(ThreeLayers):
    """One block with an activation inside, called twice."""

    last = "block.1#1"

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU())

    def forward(self, x):
        h = self.block(self.one(x))
        return self.head(self.block(h))

    def by_hand(self, x):
        h = self.block[0](self.one(x)).clamp(min=0)
        return {"block.1": h, "block.1#1": self.block[0](h).clamp(min=0)}


class Recursive(ThreeLayers):
    """Calls itself for the input turned round (test-time augmentation), and adds what both say."""

    last = "relu#1"

    def forward(self, x, again=True):
        logits = self.head(F.relu(self.one(x)))
        return logits + self(x.flip(-1), again=False) if again else logits

    def by_hand(self, x):
        return {"relu": self.one(x).clamp(min=0), "relu#1": self.one(x.flip(0)).clamp(min=0)}

    def rest(self, value, x):
        return self.head(self.one(x).clamp(min=0)) + self.head(value)


class RecursiveFirst(Recursive):
    """The same, which calls itself before anything else."""

    last = "relu"

    def forward(self, x, again=True):
        other = self(x.flip(-1), again=False) if again else 0
        return other + self.head(F.relu(self.one(x)))

    def by_hand(self, x):
        return {"relu#1": self.one(x.flip(0)).clamp(min=0), "relu": self.one(x).clamp(min=0)}

    def rest(self, value, x):
        return self.head(self.one(x.flip(0)).clamp(min=0)) + self.head(value)


class Containers(Network):
    """Containers and modules that hand on what they get, below a root with a table of its own."""

    layers = "*"
    last = "head"

    def __init__(self):
        super().__init__(6)
        self.table = nn.Parameter(torch.rand(STEPS, WIDTH))
        self.body = nn.Sequential(
            nn.Identity(),
            nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Sequential(nn.Linear(FEATURES, 6), nn.Dropout(0.5))),
            nn.Sequential(nn.Sequential(nn.ReLU(), nn.Identity())),
        )

    def forward(self, x):
        return self.head(self.body(tokens(x) + self.table))

    def by_hand(self, x):
        moved = tokens(x) + self.table  # which no layer gives but the first that hands it on
        h = self.body[1][2][0](moved.flatten())
        value = h.clamp(min=0)
        return {"body.0": moved, "body.1.2.0": h, "body.2.0.0": value, "head": self.head(value)}

    def rest(self, value, x):
        return value


class LearnableContainers(Containers):
    """The same network's layers with weights; the root owns one, and is no layer for that."""

    layers = "learnable"

    def by_hand(self, x):
        out = super().by_hand(x)
        return {name: out[name] for name in ("body.1.2.0", "head")}


NETWORKS = {
    "auxiliary head": AuxiliaryHead,
    "helpers": Helpers,
    "only a helper": OnlyAHelper,
    "loop and place": Loop,
    "loop": LoopAlone,
    "shared module": SharedModule,
    "shared block": SharedBlock,
    "recursive": Recursive,
    "recursive, first": RecursiveFirst,
    "containers": Containers,
    "containers, learnable": LearnableContainers,
}
