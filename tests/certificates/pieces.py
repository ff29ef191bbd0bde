"""Small networks of linear pieces, and what is true of them by other means."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from buttress.threat import Threat


class Part(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, v: Tensor) -> Tensor:
        """Of the same number of inputs."""
        return self.function(v)


class Residual(nn.Module):
    """A layer, a ReLU, and what they take added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, v: Tensor) -> Tensor:
        """Of the same shape."""
        return torch.relu(self.layer(v)) + v


HIDDEN: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky relu": lambda: nn.LeakyReLU(0.2),
    "steep leaky relu": lambda: nn.LeakyReLU(1.5),
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.4),
    "relu6": lambda: nn.Sequential(Part(lambda v: 8 * v), nn.ReLU6()),
    "softshrink": lambda: nn.Softshrink(0.2),
    "abs": lambda: Part(torch.abs),
    "two relus": lambda: nn.Sequential(nn.ReLU(), nn.Linear(6, 6), nn.ReLU()),
    "residual": lambda: Residual(6),
    "convolution, max pool": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten()
    ),
    "minimum of two": lambda: Part(lambda v: torch.minimum(v, v.flip(1) - 0.1)),
    "largest": lambda: Part(lambda v: torch.cat([v.amax(1, keepdim=True), v[:, 1:]], 1)),
}


def network(name: str, inputs: int = 2, seed: int = 0) -> nn.Sequential:
    """Between two linear layers, with weights that are large enough for many open units."""
    torch.manual_seed(seed)
    hidden = HIDDEN[name]()
    width = hidden(torch.zeros(1, 6)).shape[1]
    model = nn.Sequential(nn.Linear(inputs, 6), hidden, nn.Linear(width, 3))
    for parameter in model.parameters():
        parameter.data *= 2
    return model.eval()


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N,) the true class's logit less the largest other one."""
    with torch.no_grad():
        logits = model(x)
    return logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -torch.inf).amax(1)


def on_grid(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int = 201) -> Tensor:
    """(N,) the least margin on a grid of each input's region, for two features."""
    line = torch.linspace(-threat.eps, threat.eps, steps)
    shifts = torch.cartesian_prod(line, line)
    if threat.norm == "l1":
        shifts = shifts[shifts.abs().sum(1) <= threat.eps]
    return torch.stack(
        [margins(model, (one + shifts).clamp(0, 1), y[i].expand(len(shifts))).min() for i, one in enumerate(x)]
    )
