"""Layers whose value the rest of the network reads in another way than by what a call returns."""

import torch
import torch.nn.functional as F
from tests.layers.zoo.network import FEATURES, Network, OneLayer, ThreeLayers
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint


class Method(OneLayer):
    """An activation written over its input, whose returned value nobody reads."""

    def forward(self, x):
        h = self.fc(x)
        h.relu_()
        return self.head(h)


class Function(Method):
    """The same by a function of torch."""

    def forward(self, x):
        h = self.fc(x)
        torch.relu_(h)
        return self.head(h)


class Functional(Method):
    """The same by a function with an option."""

    def forward(self, x):
        h = self.fc(x)
        F.relu(h, inplace=True)
        return self.head(h)


class Module(Method):
    """The same by a module."""

    last = "act"

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.fc(x)
        self.act(h)
        return self.head(h)


class HalfWritten(Method):
    """An activation in place of a part of a value: a view of it."""

    def forward(self, x):
        h = self.fc(x)
        h[:, :4].relu_()
        return self.head(h)

    def by_hand(self, x):
        return {"relu": self.fc(x)[:4].clamp(min=0)}

    def rest(self, value, x):
        return self.head(torch.cat([value, self.fc(x)[4:]]))


class Checkpointed(Network):
    """A block that runs once more in the backward pass."""

    last = "block.1"

    def __init__(self, reentrant):
        super().__init__(6)
        self.reentrant, self.searched = reentrant, not reentrant
        self.block = nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU())

    def forward(self, x):
        x = x if x.requires_grad or not self.reentrant else x.clone().requires_grad_()
        return self.head(checkpoint(self.block, x, use_reentrant=self.reentrant))

    def by_hand(self, x):
        return {"block.1": self.block[0](x).clamp(min=0)}


class CheckpointedFunction(Checkpointed):
    """The same around a function of the network's own, in which nothing says where in the network it runs."""

    last = "relu"

    def forward(self, x):
        x = x if x.requires_grad or not self.reentrant else x.clone().requires_grad_()
        return self.head(checkpoint(self._part, x, use_reentrant=self.reentrant))

    def _part(self, x):
        return F.relu(self.block[0](x))

    def by_hand(self, x):
        return {"relu": self._part(x)}


class CheckpointedTwice(ThreeLayers):
    """One function of the network's own, computed again from two places."""

    last = "relu#1"

    def forward(self, x):
        h = checkpoint(self._part, self.one, x, use_reentrant=False)
        return self.head(checkpoint(self._part, self.two, h, use_reentrant=False))

    def _part(self, layer, x):
        return F.relu(layer(x))

    def by_hand(self, x):
        h = self.one(x).clamp(min=0)
        return {"relu": h, "relu#1": self.two(h).clamp(min=0)}


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


class InsideAFunction(OneLayer):
    """An activation inside of an ``autograd.Function``: its value carries no gradient."""

    missed = ("_Relu",)
    searched = False

    def forward(self, x):
        return self.head(_Relu.apply(self.fc(x)))

    def by_hand(self, x):
        return {"relu": _Relu.apply(self.fc(x))}


class WithoutGradient(OneLayer):
    """An activation in a part that runs without gradients: what follows has one for another value in its place."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, x):
        with self.mode():
            h = F.relu(self.fc(x))
        return self.head(h.clone())


class WeightNormed(Network):
    """A weight of given length, in a direction that is a parameter of its own."""

    def __init__(self):
        super().__init__(6)
        self.fc = weight_norm(nn.Linear(FEATURES, 6))

    def forward(self, x):
        return self.head(torch.relu(self.fc(x)))

    def by_hand(self, x):
        length, direction = self.fc.parametrizations.weight.original0, self.fc.parametrizations.weight.original1
        weight = length * direction / direction.square().sum(1, keepdim=True).sqrt()
        return {"relu": (weight @ x + self.fc.bias).clamp(min=0)}


class SpectralNormed(Network):
    """A weight divided by its largest singular value, by so many power iterations that they have converged."""

    def __init__(self):
        super().__init__(6)
        self.fc = spectral_norm(nn.Linear(FEATURES, 6), n_power_iterations=60)
        for _ in range(10):
            self.fc(torch.ones(1, FEATURES))

    def forward(self, x):
        return self.head(torch.relu(self.fc(x)))

    def by_hand(self, x):
        weight = self.fc.parametrizations.weight.original
        weight = weight / torch.linalg.matrix_norm(weight, 2)
        return {"relu": (weight @ x + self.fc.bias).clamp(min=0)}


class Views(Method):
    """A value that is written over after its activation, by way of a view."""

    last = "gelu"

    def forward(self, x):
        h = F.gelu(self.fc(x))
        h.view(-1).mul_(0.5)
        return self.head(h)

    def by_hand(self, x):
        return {"gelu": F.gelu(self.fc(x))}

    def rest(self, value, x):
        return self.head(value / 2)


NETWORKS = {
    "h.relu_() as a statement": Method,
    "torch.relu_(h) as a statement": Function,
    "F.relu(h, inplace=True) as a statement": Functional,
    "a module in place as a statement": Module,
    "in place of a part": HalfWritten,
    "written over by a view": Views,
    "checkpointed": lambda: Checkpointed(False),
    "checkpointed, reentrant": lambda: Checkpointed(True),
    "a checkpointed method": lambda: CheckpointedFunction(False),
    "a checkpointed method, reentrant": lambda: CheckpointedFunction(True),
    "checkpointed twice": CheckpointedTwice,
    "inside of an autograd function": InsideAFunction,
    "without a gradient": lambda: WithoutGradient(torch.no_grad),
    "in inference mode": lambda: WithoutGradient(torch.inference_mode),
    "weight-normed": WeightNormed,
    "spectral-normed": SpectralNormed,
}
