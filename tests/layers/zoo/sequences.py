"""Sequences: the axis of inputs comes first or second, or is folded together with another one."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import STEPS, WIDTH, Network, tokens
from torch import nn


def attention(module, x):
    """(T, W) of one input (T, W), by the definition, for each head."""
    heads = []
    queries, keys, targets = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, dim=1)
    size = x.shape[1] // module.num_heads
    for k in range(module.num_heads):
        q, key, v = (part[:, k * size : (k + 1) * size] for part in (queries, keys, targets))
        heads.append(torch.softmax(q @ key.T / size**0.5, dim=1) @ v)
    return module.out_proj(torch.cat(heads, dim=1))


class Encoder(Network):
    """torch's own transformer encoder, and a layer that reads what it gives."""

    last = "gelu"

    def __init__(self, batch_first, norm_first=False):
        super().__init__(5)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 2, 7, dropout=0.0, batch_first=batch_first, norm_first=norm_first, activation=F.relu
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first, self.fc = batch_first, nn.Linear(STEPS * WIDTH, 5)

    def forward(self, x):
        h = tokens(x)
        h = self.encoder(h) if self.batch_first else self.encoder(h.transpose(0, 1)).transpose(0, 1)
        return self.head(F.gelu(self.fc(h.flatten(1))))

    def by_hand(self, x):
        h, out = tokens(x), {}
        for k, layer in enumerate(self.encoder.layers):
            if layer.norm_first:
                h = h + attention(layer.self_attn, layer.norm1(h))
                value = layer.linear1(layer.norm2(h)).clamp(min=0)
                h = h + layer.linear2(value)
            else:
                h = layer.norm1(h + attention(layer.self_attn, h))
                value = layer.linear1(h).clamp(min=0)
                h = layer.norm2(h + layer.linear2(value))
            out[f"encoder.layers.{k}.relu"] = value
        return {**out, "gelu": F.gelu(self.fc(h.flatten()))}


class ViT(Network):
    """A vision transformer: a class token, positions, and a block with attention and a perceptron, before the norm."""

    last = "mlp.1"

    def __init__(self, batch_first):
        super().__init__(8)
        self.embed = nn.Linear(WIDTH, 8)
        self.cls, self.positions = nn.Parameter(torch.rand(1, 1, 8)), nn.Parameter(torch.rand(1, STEPS + 1, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(8, 9), nn.GELU(), nn.Linear(9, 8))

    def forward(self, x):
        h = torch.cat([self.cls.expand(len(x), 1, 8), self.embed(tokens(x))], dim=1) + self.positions
        h = h if self.attend.batch_first else h.transpose(0, 1)
        normed = self.norm1(h)
        h = h + self.attend(normed, normed, normed, need_weights=False)[0]
        h = h + self.mlp(self.norm2(h))
        return self.head(h[:, 0] if self.attend.batch_first else h[0])

    def _attended(self, x):
        h = torch.cat([self.cls[0], self.embed(tokens(x))]) + self.positions[0]
        return h + attention(self.attend, self.norm1(h))

    def by_hand(self, x):
        return {"mlp.1": F.gelu(self.mlp[0](self.norm2(self._attended(x))))}

    def rest(self, value, x):
        return self.head((self._attended(x) + self.mlp[2](value))[0])


def cell(kind, x, h, c, weight, recurrent, bias, recurrent_bias):
    """One step of a recurrent network, by the formulas of torch's documentation."""
    a, b = x @ weight.T + bias, h @ recurrent.T + recurrent_bias
    if kind == "lstm":
        i, f, g, o = (a + b).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    (r, z, n), (r2, z2, n2) = a.chunk(3), b.chunk(3)
    r, z = (r + r2).sigmoid(), (z + z2).sigmoid()
    return (1 - z) * (n + r * n2).tanh() + z * h, c


class Recurrent(Network):
    """An LSTM or a GRU, read by its last output or by its last states, which are parts of its outputs."""

    layers = ("rnn",)
    last = "rnn"

    def __init__(self, kind, batch_first, by_state, depth=1, bidirectional=False):
        super().__init__(5 * (2 if bidirectional else 1))
        self.kind, self.by_state = kind, by_state
        make = nn.LSTM if kind == "lstm" else nn.GRU
        self.rnn = make(WIDTH, 5, depth, batch_first=batch_first, bidirectional=bidirectional)

    def forward(self, x):
        output, state = self.rnn(tokens(x) if self.rnn.batch_first else tokens(x).transpose(0, 1))
        if self.by_state:
            state = state[0] if self.kind == "lstm" else state
            last = state[-2:] if self.rnn.bidirectional else state[-1:]
            last = last.transpose(0, 1).flatten(1)
        else:
            last = output[:, -1] if self.rnn.batch_first else output[-1]
        return self.head(last)

    def by_hand(self, x):
        h = tokens(x)
        for depth in range(self.rnn.num_layers):
            ways = [self._direction(h, f"l{depth}", range(STEPS))]
            if self.rnn.bidirectional:
                ways.append(self._direction(h, f"l{depth}_reverse", range(STEPS - 1, -1, -1)))
            h = torch.cat(ways, dim=1)
        return {"rnn": h}

    def _direction(self, x, suffix, order):
        parts = [getattr(self.rnn, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        h = c = torch.zeros(5)
        outputs = {}
        for t in order:
            h, c = cell(self.kind, x[t], h, c, *parts)
            outputs[t] = h
        return torch.stack([outputs[t] for t in range(STEPS)])

    def rest(self, value, x):
        # Where each direction ends: the way back at the first step.
        return self.head(torch.cat([value[-1, :5], value[0, 5:]]) if self.by_state else value[-1])


class RecurrentAndHead(Recurrent):
    """All its layers with weights."""

    layers = "learnable"
    last = "head"

    def by_hand(self, x):
        out = super().by_hand(x)
        return {**out, "head": super().rest(out["rnn"], x)}

    def rest(self, value, x):
        return value


class Packed(Recurrent):
    """A packed sequence, of which only the steps that there are come back, one after the other for all inputs."""

    def forward(self, x):
        lengths = [STEPS] * len(x)
        packed = nn.utils.rnn.pack_padded_sequence(tokens(x), lengths, batch_first=True)
        output, state = self.rnn(packed)
        if self.by_state:
            return self.head(state[0].transpose(0, 1).flatten(1))
        return self.head(nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0][:, -1])


class Named(NamedTuple):
    """What a block returns under names."""

    value: torch.Tensor
    other: int


class NamedBlock(nn.Module):
    """A layer that returns a named tuple."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(WIDTH, 5)

    def forward(self, x):
        return Named(torch.tanh(self.fc(x)), 3)


class Returned(Network):
    """A block that returns a named tuple."""

    layers = ("block",)
    last = "block"

    def __init__(self):
        super().__init__(STEPS * 5)
        self.block = NamedBlock()

    def forward(self, x):
        return self.head(self.block(tokens(x)).value.flatten(1))

    def by_hand(self, x):
        return {"block": torch.tanh(self.block.fc(tokens(x)))}


class Folded(Network):
    """Time folded into the axis of inputs, input by input or step by step."""

    def __init__(self, time_major):
        super().__init__(STEPS * 5)
        self.time_major, self.fc = time_major, nn.Linear(WIDTH, 5)

    def forward(self, x):
        h = tokens(x).transpose(0, 1) if self.time_major else tokens(x)
        h = torch.relu(self.fc(h.reshape(-1, WIDTH))).reshape(*h.shape[:2], 5)
        return self.head((h.transpose(0, 1) if self.time_major else h).flatten(1))

    def by_hand(self, x):
        return {"relu": torch.relu(self.fc(tokens(x)))}


class Windows(Network):
    """Two windows of three steps each, as many rows as inputs and windows together, then shifted by one (Swin)."""

    last = "second.1"

    def __init__(self):
        super().__init__(STEPS * WIDTH)
        self.first = nn.Sequential(nn.Linear(3 * WIDTH, 7), nn.GELU(), nn.Linear(7, 3 * WIDTH))
        self.second = nn.Sequential(nn.Linear(3 * WIDTH, 7), nn.GELU(), nn.Linear(7, 3 * WIDTH))

    def forward(self, x):
        h = tokens(x).reshape(-1, 3 * WIDTH)
        h = (h + self.first(h)).reshape(len(x), STEPS, WIDTH).roll(1, dims=1).reshape(-1, 3 * WIDTH)
        h = (h + self.second(h)).reshape(len(x), STEPS, WIDTH).roll(-1, dims=1)
        return self.head(h.flatten(1))

    def _halves(self, x):
        """The first block's activation, and what the second block reads."""
        h = tokens(x).reshape(2, 3 * WIDTH)
        first = F.gelu(self.first[0](h))
        h = (h + self.first[2](first)).reshape(STEPS, WIDTH)
        return first, torch.cat([h[-1:], h[:-1]]).reshape(2, 3 * WIDTH)

    def by_hand(self, x):
        first, shifted = self._halves(x)
        return {"first.1": first, "second.1": F.gelu(self.second[0](shifted))}

    def rest(self, value, x):
        h = (self._halves(x)[1] + self.second[2](value)).reshape(STEPS, WIDTH)
        return self.head(torch.cat([h[1:], h[:1]]).flatten())


NETWORKS = {
    "encoder, batch first": lambda: Encoder(True),
    "encoder, sequence first": lambda: Encoder(False),
    "encoder, norm first": lambda: Encoder(False, norm_first=True),
    "vit, batch first": lambda: ViT(True),
    "vit, sequence first": lambda: ViT(False),
    "time folded, input by input": lambda: Folded(False),
    "time folded, step by step": lambda: Folded(True),
    "windows": Windows,
    "packed lstm, by its last output": lambda: Packed("lstm", True, False),
    "packed lstm, by its state": lambda: Packed("lstm", True, True, 1, True),
    "named tuple": Returned,
    "lstm and head": lambda: RecurrentAndHead("lstm", False, False),
    "gru and head": lambda: RecurrentAndHead("gru", False, True),
}
for kind in ("lstm", "gru"):
    for batch_first in (True, False):
        NETWORKS |= {
            f"{kind}, {'batch' if batch_first else 'sequence'} first, {reading}": partial(
                Recurrent, kind, batch_first, *options
            )
            for reading, options in {
                "by its last output": (False,),
                "by its state": (True,),
                "two layers": (True, 2),
                "both ways": (True, 1, True),
            }.items()
        }
