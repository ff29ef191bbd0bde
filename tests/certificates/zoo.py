"""Networks with every kind of layer that can be bounded, and some that cannot."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE, CLASSES = (3, 6, 6), 4
_PLUS_AND_MINUS = (torch.arange(144 * 5).view(144, 5) % 7 - 3) / 20


class Between(nn.Module):
    """A convolution, something, and a linear layer."""

    def __init__(self, part: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(SHAPE[0], channels, 3, padding=1)
        self.part = part
        self.last = nn.Linear(part(torch.zeros(2, channels, *SHAPE[1:])).flatten(1).shape[1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.last(self.part(self.first(x)).flatten(1))


class Residual(nn.Module):
    """Two branches, one of them with a BatchNorm, that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean, self.norm.running_var = torch.randn(4), torch.rand(4) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return F.relu(self.norm(self.a(F.relu(x))) - 0.5 * self.b(x))


class Recurrent(nn.Module):
    """A cell that goes over the rows of an image."""

    def __init__(self, kind: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.cell = kind(24, 5)

    def forward(self, v: Tensor) -> Tensor:
        """(N, 5) the last state."""
        state = None
        for row in v.transpose(1, 2).flatten(2)[:, :3].unbind(1):
            state = self.cell(row, state)
        return state[0] if isinstance(state, tuple) else state


ACTIVATIONS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(True),
    "leaky relu": lambda: nn.LeakyReLU(0.2),
    "steep leaky relu": lambda: nn.LeakyReLU(1.5),
    "prelu": lambda: nn.PReLU(4),
    "relu6": nn.ReLU6,
    "hardtanh": lambda: nn.Hardtanh(-0.1, 0.2),
    "clamp": lambda: lambda v: v.clamp(-0.1, 0.15),
    "clamp from below": lambda: lambda v: v.clamp(min=0.05),
    "clamp from above": lambda: lambda v: v.clamp(max=0.05),
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": lambda: nn.CELU(0.5),
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": lambda: nn.Softplus(2.0),
    "logsigmoid": nn.LogSigmoid,
    "tanhshrink": nn.Tanhshrink,
    "softshrink": lambda: nn.Softshrink(0.1),
    "threshold at 0": lambda: nn.Threshold(0.0, 0.0),
    "abs": lambda: torch.abs,
    "square": lambda: torch.square,
    "cube": lambda: lambda v: v**3,
    "root": lambda: lambda v: (v**2 + 1).sqrt(),
    "reciprocal": lambda: lambda v: 1 / (v**2 + 1),
    "log": lambda: lambda v: torch.log(v**2 + 1),
    "exp": lambda: torch.exp,
    "sine": lambda: torch.sin,
    "erf": lambda: torch.erf,
    "to the power of 1": lambda: lambda v: v**1,
    "clamp by feature": lambda: (
        lambda v: v.clamp(torch.tensor([[[-0.1]], [[0.0]], [[-1.0]], [[0.1]]]), torch.tensor(0.2))
    ),
    "maximum with constants": lambda: lambda v: torch.maximum(torch.linspace(-0.3, 0.3, 4).view(4, 1, 1), v),
    "minimum with a constant": lambda: lambda v: torch.minimum(v, torch.tensor(0.05)),
}
PARTS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "max pool": lambda: nn.MaxPool2d(2),
    "max pool that overlaps": lambda: nn.MaxPool2d(3, 2, 1),
    "max pool with ceil": lambda: nn.MaxPool2d(4, 3, ceil_mode=True),
    "max pool with gaps": lambda: nn.MaxPool2d(2, dilation=2),
    "max pool in one dimension": lambda: lambda v: F.max_pool1d(v.flatten(2), 3),
    "global max pool": lambda: nn.AdaptiveMaxPool2d(1),
    "average pool": lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.ReLU()),
    "adaptive average pool": lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
    "batchnorm": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
    "residual": Residual,
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.ReLU()),
    "transposed convolution": lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 2, 2), nn.ReLU()),
    "grouped convolution": lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, stride=2, bias=False), nn.ReLU()),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), nn.ReLU()),
    "padding with a constant": lambda: nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.ReLU()),
    "reflection": lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.ReLU(), nn.Conv2d(4, 2, 3)),
    "upsampling": lambda: lambda v: F.relu(F.interpolate(F.relu(v), scale_factor=2, mode="bilinear")),
    "pixel shuffle": lambda: nn.Sequential(nn.PixelShuffle(2), nn.ReLU()),
    "concatenation": lambda: lambda v: torch.cat([v.relu(), -v, v.abs()], 1),
    "parts": lambda: lambda v: torch.stack([part.relu() * (k + 1) for k, part in enumerate(v.chunk(2, 1))]).sum(0),
    "written in place": lambda: lambda v: v.mul_(2).sub_(0.1).relu_(),
    "written into a view": lambda: _written,
    "maximum of two": lambda: lambda v: torch.maximum(v, -0.5 * v),
    "maximum of two that are broadcast": lambda: lambda v: torch.maximum(v.mean(1, keepdim=True), v),
    "minimum of two with other axes": lambda: lambda v: torch.minimum(v[:, None], v.mean((1, 2))[:, None, None, None]),
    "minimum of two": lambda: lambda v: torch.minimum(v, v.flip(2)),
    "maximum over a dimension": lambda: lambda v: v.max(2).values,
    "minimum over dimensions": lambda: lambda v: v.amin((1, 3)),
    "product": lambda: lambda v: v * torch.sigmoid(v.mean((2, 3), keepdim=True)),
    "attention by hand": lambda: lambda v: torch.einsum("nchw,cd->ndhw", v, torch.eye(4) - 0.5).relu(),
    "product with a factor": lambda: (
        lambda v: torch.addmm(torch.ones(1), v.flatten(1), _PLUS_AND_MINUS, alpha=-2).relu()
    ),
    "detached": lambda: lambda v: v.detach() + v.relu(),
    "recurrent": lambda: Recurrent(nn.RNNCell),
    "recurrent with gates": lambda: Recurrent(nn.LSTMCell),
    "where": lambda: lambda v: torch.where(torch.arange(6) % 2 == 0, v, v.relu()),
}


def _written(v: Tensor) -> Tensor:
    v = v.clone()
    v[:, 0] = v[:, 1].relu()
    v.view(len(v), -1)[:, 5:].mul_(-1)
    return v.relu()


def network(name: str, seed: int = 0) -> nn.Module:
    """One of them, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Between((ACTIVATIONS | PARTS)[name]()).eval()


def mlp(seed: int, sizes: tuple[int, ...] = (4, 6, 6, 3)) -> nn.Module:
    """A small network of ReLUs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1]).eval()


def least_margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N,) the true class's logit less the largest other one."""
    logits = model(x)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return logits.gather(1, y[:, None])[:, 0] - others
