"""What a network makes of a batch as a whole: parts of it, sums over it, its inputs in another order."""

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import FEATURES, STEPS, WIDTH, Network, OneLayer, tokens
from torch import nn


class Experts(Network):
    """Two experts, each of which sees the inputs that are its own; the second one none, if so wanted."""

    def __init__(self, cut=0.5, by="mask"):
        super().__init__(5)
        self.cut, self.by = cut, by
        self.low, self.high = (nn.Sequential(nn.Linear(FEATURES, 5), nn.GELU()) for _ in range(2))

    def forward(self, x):
        chosen = x[:, 0] > self.cut
        h = x.new_zeros(len(x), 5)
        if self.by == "mask":
            h[~chosen], h[chosen] = self.low(x[~chosen]), self.high(x[chosen])
        else:
            for expert, rows in ((self.low, ~chosen), (self.high, chosen)):
                rows = rows.nonzero().squeeze(1)
                h = h.index_add(0, rows, expert(x.index_select(0, rows)))
        return self.head(torch.relu(h))

    def by_hand(self, x):
        high = bool(x[0] > self.cut)
        value = F.gelu((self.high if high else self.low)[0](x))
        return {"low.1": None if high else value, "high.1": value if high else None, "relu": torch.relu(value)}


class RowByRow(OneLayer):
    """Every input on its own, in a loop: the first call is what an input alone goes through, the others are others'."""

    def left_out_of(self, sizes):
        return {f"gelu#{k}" for k in range(1, max(sizes))}

    def forward(self, x):
        return self.head(torch.relu(torch.stack([F.gelu(self.fc(row)) for row in x])))

    def by_hand(self, x):
        value = F.gelu(self.fc(x))
        return {"gelu": value, "relu": torch.relu(value)}


class BetweenInputs(OneLayer):
    """How alike the inputs of a batch are: a value of pairs, which belongs to no input."""

    left_out = frozenset({"tanh"})
    missed = ("matmul",)

    def forward(self, x):
        alike = torch.tanh(x @ x.T)
        return self.head(torch.relu(self.fc(x))) + 0 * alike.sum(1, keepdim=True)


class Copies(OneLayer):
    """Every input twice, once turned round, side by side on the axis of inputs (averaged at the end)."""

    def __init__(self, interleaved):
        super().__init__()
        self.interleaved = interleaved

    def forward(self, x):
        both = torch.stack([x, x.flip(1)], dim=1 if self.interleaved else 0)
        h = torch.relu(self.fc(both.reshape(-1, FEATURES)))
        return self.head(h.reshape(*both.shape[:2], 6).mean(1 if self.interleaved else 0))

    def by_hand(self, x):
        return {"relu": torch.relu(self.fc(torch.stack([x, x.flip(0)])))}

    def rest(self, value, x):
        return self.head(value.mean(0))


class Pooled(OneLayer):
    """A mean over the batch through an activation, with as many entries as features: no input's own."""

    left_out = frozenset({"tanh"})

    def __init__(self, axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        h = self.fc(x)
        return self.head(torch.relu(h)) + 0 * torch.tanh(h.mean(self.axes)).sum()


class Sorted(OneLayer):
    """The inputs in the order of their first feature, and back."""

    last = "gelu"

    def forward(self, x):
        order = x[:, 0].argsort()
        return self.head(F.gelu(self.fc(x[order]))[order.argsort()])

    def by_hand(self, x):
        return {"gelu": F.gelu(self.fc(x))}


class Slots(OneLayer):
    """Two experts' buffers of as many slots as inputs, which are filled in the order of the inputs."""

    last = "gelu"

    def forward(self, x):
        chosen = (x[:, 0] > 0.5).long()
        slot = torch.where(chosen == 1, (chosen == 1).cumsum(0), (chosen == 0).cumsum(0)) - 1
        buffers = torch.zeros(2, len(x), 6).index_put((chosen, slot), self.fc(x))
        return self.head(F.gelu(buffers)[chosen, slot])

    def by_hand(self, x):
        chosen = int(x[0] > 0.5)
        return {"gelu": torch.zeros(2, 1, 6).index_put((torch.tensor(chosen),), F.gelu(self.fc(x)))}

    def rest(self, value, x):
        return self.head(value[int(x[0] > 0.5), 0])


class Prototypes(OneLayer):
    """Four learned inputs beside those of the batch, which every input is then compared with."""

    missed = ("matmul",)

    def __init__(self, before):
        super().__init__()
        self.before, self.prototypes = before, nn.Parameter(torch.rand(4, FEATURES))

    def forward(self, x):
        parts = (self.prototypes, x) if self.before else (x, self.prototypes)
        first, second = torch.relu(self.fc(torch.cat(parts))).split([len(part) for part in parts])
        return self._compared(*((second, first) if self.before else (first, second)))

    def _compared(self, value, held):
        return self.head(value + 0.1 * (value @ held.T) @ held)

    def rest(self, value, x):
        return self._compared(value, self.fc(self.prototypes).clamp(min=0))


class TurnedRound(Network):
    """All steps of all inputs, folded, in the opposite order, and back."""

    last = "gelu"

    def __init__(self, steps_first):
        super().__init__(STEPS * WIDTH)
        self.steps_first, self.fc = steps_first, nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        h = tokens(x).transpose(0, 1) if self.steps_first else tokens(x)
        h = F.gelu(self.fc(h.flatten(0, 1).flip(0))).flip(0).unflatten(0, h.shape[:2])
        return self.head((h.transpose(0, 1) if self.steps_first else h).flatten(1))

    def by_hand(self, x):
        return {"gelu": F.gelu(self.fc(tokens(x)))}


class Shuffled(OneLayer):
    """The inputs in an order that is drawn, and back."""

    last = "gelu"

    def forward(self, x):
        order = torch.randperm(len(x))
        return self.head(F.gelu(self.fc(x[order]))[order.argsort()])

    def by_hand(self, x):
        return {"gelu": F.gelu(self.fc(x))}


class FoldedTwice(Network):
    """Two versions of every input before, and its steps behind the inputs, on one axis: the inputs in the middle."""

    def __init__(self):
        super().__init__(STEPS * WIDTH)
        self.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        h = torch.stack([tokens(x), tokens(x.flip(1))])
        h = F.gelu(self.fc(h.flatten(0, 2))).unflatten(0, h.shape[:3])
        return self.head(torch.relu(h.sum(0)).flatten(1))

    def by_hand(self, x):
        versions = F.gelu(self.fc(tokens(torch.stack([x, x.flip(0)]))))
        return {"gelu": versions, "relu": versions.sum(0).clamp(min=0)}


NETWORKS = {
    "experts by mask": Experts,
    "experts by index": lambda: Experts(by="index"),
    "an expert without inputs": lambda: Experts(cut=2.0),
    "row by row": RowByRow,
    "between inputs": BetweenInputs,
    "copies, side by side": lambda: Copies(True),
    "copies, one after the other": lambda: Copies(False),
    "a mean over the batch": lambda: Pooled((0,)),
    "a mean over everything": lambda: Pooled((0, 1)),
    "sorted": Sorted,
    "slots": Slots,
    "folded twice": FoldedTwice,
    "prototypes behind": lambda: Prototypes(False),
    "prototypes before": lambda: Prototypes(True),
    "turned round": lambda: TurnedRound(False),
    "turned round, steps first": lambda: TurnedRound(True),
    "shuffled": Shuffled,
}
