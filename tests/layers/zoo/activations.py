"""Activations that are no modules of torch's: within a subclass of one, by hand, under another name."""

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import STEPS, WIDTH, Network, ThreeLayers, tokens
from torch import nn


class _Scores(nn.MultiheadAttention):
    """An attention of one's own, derived from torch's: sigmoid in the place of softmax."""

    def forward(self, x):
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=2)
        return self.out_proj(torch.sigmoid(q @ k.transpose(1, 2)) @ v)


class SigmoidAttention(Network):
    """Scores of attention through a sigmoid: a layer of their own, and not the output of the attention."""

    last = "attend.sigmoid"
    missed = ("matmul",)

    def __init__(self):
        super().__init__(STEPS * WIDTH)
        self.attend = _Scores(WIDTH, 1)

    def forward(self, x):
        return self.head(self.attend(tokens(x)).flatten(1))

    def _parts(self, x):
        return F.linear(tokens(x), self.attend.in_proj_weight, self.attend.in_proj_bias).chunk(3, dim=1)

    def by_hand(self, x):
        q, k, _ = self._parts(x)
        return {"attend.sigmoid": torch.sigmoid(q @ k.T)}

    def rest(self, value, x):
        return self.head(self.attend.out_proj(value @ self._parts(x)[2]).flatten())


class _Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


class HandWritten(ThreeLayers):
    """An activation that buttress does not know by name, before one that it knows."""

    def __init__(self, call, name):
        super().__init__()
        self.call, self.missed = call, (name,)

    def forward(self, x):
        return self.head(F.relu(self.two(self.call(self.one(x)))))

    def by_hand(self, x):
        return {"relu": self.two(self.call(self.one(x))).clamp(min=0)}


class Special(ThreeLayers):
    """An activation under the name that it has among the special functions."""

    def forward(self, x):
        return self.head(F.relu(self.two(torch.special.expit(self.one(x)))))

    def by_hand(self, x):
        value = 1 / (1 + torch.exp(-self.one(x)))
        return {"sigmoid": value, "relu": self.two(value).clamp(min=0)}


class SwishByHand(ThreeLayers):
    """A product with the sigmoid of itself: the sigmoid is a layer, what it is made for is told."""

    missed = ("mul",)

    def forward(self, x):
        h = self.one(x)
        return self.head(F.relu(self.two(h * torch.sigmoid(h))))

    def by_hand(self, x):
        h = self.one(x)
        gate = 1 / (1 + torch.exp(-h))
        return {"sigmoid": gate, "relu": self.two(h * gate).clamp(min=0)}


NETWORKS = {
    "sigmoid attention": SigmoidAttention,
    "where": lambda: HandWritten(lambda h: torch.where(h > 0, h, 0.1 * h), "where"),
    "maximum": lambda: HandWritten(lambda h: torch.maximum(h, 0.1 * h), "maximum"),
    "clamp": lambda: HandWritten(lambda h: h.clamp(min=0), "clamp"),
    "custom function": lambda: HandWritten(_Custom.apply, "_Custom"),
    "special": Special,
    "swish by hand": SwishByHand,
}
