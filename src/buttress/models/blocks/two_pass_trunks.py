"""Trunks that a network passes twice: stages after which features can be read, a head, statistics for each pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.architectures.resnet import resnet18
from buttress.models.surgery import SMOOTH

TRUNKS = ("cnn", "resnet18")
NORMS = ("none", "batch", "group")
ACTIVATIONS = ("relu", *SMOOTH)


class PassNorm(nn.Module):
    """Batch normalisation with statistics of their own for each of two passes, and one scale and shift for both.

    A pass without the gradient and one with it see different distributions, which common statistics would mix.

    Args:
        features: channels.

    Attributes:
        turn: the pass to come, 0 or 1.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.statistics = nn.ModuleList([nn.BatchNorm2d(features, affine=False) for _ in range(2)])
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        """Features of the shape of ``x``, (N, features, H, W)."""
        out: Tensor = self.statistics[self.turn](x)
        return out * self.weight[:, None, None] + self.bias[:, None, None]


class Trunk(nn.Module):
    """Stages in a row, and a head that makes logits of the last one's features.

    Args:
        stages: images -> (N, widths[0], H, W) -> (N, widths[1], ...) and so on.
        head: features -> logits (N, classes).
        widths: channels after each stage.
        image_size: height and width of the images, where the head is made for one.
    """

    def __init__(
        self, stages: Sequence[nn.Module], head: nn.Module, widths: Sequence[int], image_size: int = 0
    ) -> None:
        super().__init__()
        self.stages, self.head = nn.ModuleList(stages), head
        self.widths, self.size = tuple(widths), image_size

    def turn(self, number: int) -> None:
        """Say which of the two passes comes next, 0 or 1."""
        for module in self.modules():
            if isinstance(module, PassNorm):
                module.turn = number


class Correction(nn.Module):
    """What the gradient adds to features: 1x1 convolutions of both, 2k -> k -> k, the last of them zero at first."""

    def __init__(self, features: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * features, features, 1)
        self.norm = nn.GroupNorm(groups(features), features)
        self.relu = activated(activation)
        self.conv2 = nn.Conv2d(features, features, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, h: Tensor, flow: Tensor) -> Tensor:
        """(N, features, H, W) to be added to ``h``, given its gradient ``flow``, both of that shape."""
        out: Tensor = self.conv2(self.relu(self.norm(self.conv1(torch.cat([h, flow], 1)))))
        return out


def cnn_trunk(
    inputs: int, classes: int, width: int, image_size: int, activation: str, norm: str | None, twice: bool
) -> Trunk:
    """Two 3x3 convolutions with a pooling after each, and two linear layers: the registered ``cnn``, as a trunk.

    Args:
        inputs: channels of what enters it.
        classes: number of classes.
        width: filters of the first convolution; the second has twice, the hidden linear layer four times as many.
        image_size: height and width of the images, at least 4.
        activation: relu, or a smooth one.
        norm: after each convolution; none unless given.
        twice: whether it is passed twice, so that batch normalisation keeps statistics of each pass.
    """
    stages, before = list[nn.Module](), inputs
    for filters in (width, 2 * width):
        layers: list[nn.Module] = [nn.Conv2d(before, filters, 3, padding=1)]
        if norm not in (None, "none"):
            layers.append(_norm(str(norm), filters, twice))
        stages.append(nn.Sequential(*layers, activated(activation), nn.MaxPool2d(2)))
        before = filters
    flat = 2 * width * (image_size // 4) ** 2
    head = [nn.Flatten(), nn.Linear(flat, 4 * width), activated(activation), nn.Linear(4 * width, classes)]
    return Trunk(stages, nn.Sequential(*head), (width, 2 * width), image_size)


def resnet_trunk(inputs: int, classes: int, width: int, activation: str, norm: str | None, twice: bool) -> Trunk:
    """The registered ``resnet18`` as a trunk of five stages: the stem and four of two blocks each.

    Args:
        inputs: channels of what enters it.
        classes: number of classes.
        width: filters of the first stage, doubled in each of the last three.
        activation: relu, or a smooth one.
        norm: batch or group; batch unless given.
        twice: as of `cnn_trunk`.

    Raises:
        UserError: for no normalisation, without which it is not trained.
    """
    if norm == "none":
        raise UserError("norm must be batch or group for the trunk resnet18, which is not trained without")
    net = resnet18(classes=classes, channels=inputs, width=width)
    stages = [nn.Sequential(net.get_submodule("conv1"), net.get_submodule("bn1"), net.get_submodule("relu"))]
    stages += [net.get_submodule(f"layer{k}") for k in range(1, 5)]  # type: ignore[misc]  # all are Sequential
    head = nn.Sequential(net.get_submodule("pool"), nn.Flatten(), net.get_submodule("linear"))
    trunk = Trunk(stages, head, (width, width, 2 * width, 4 * width, 8 * width))
    for name, module in list(trunk.named_modules()):
        new: nn.Module | None = None
        if isinstance(module, nn.BatchNorm2d):
            new = _norm(norm or "batch", module.num_features, twice)
        elif isinstance(module, nn.ReLU):
            new = activated(activation)
        if new is not None:
            parent, _, own = name.rpartition(".")
            trunk.get_submodule(parent)._modules[own] = new
    return trunk


def smoothed(module: nn.Module) -> nn.Module:
    """The same module on the same live weights, softplus with beta 10 in the place of every ReLU; nothing is copied."""
    if isinstance(module, nn.ReLU):
        return SMOOTH["softplus"]()
    same = copy.copy(module)
    same._modules = {name: None if child is None else smoothed(child) for name, child in module._modules.items()}
    return same


def groups(features: int) -> int:
    """Groups of a group normalisation: 4, or 1 where they would be of fewer than 2 channels or unequal."""
    return 4 if features % 8 == 0 else 1


def _norm(norm: str, features: int, twice: bool) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(groups(features), features)
    return PassNorm(features) if twice else nn.BatchNorm2d(features)


def activated(name: str) -> nn.Module:
    """A new ReLU, or a smooth activation, by name."""
    return nn.ReLU() if name == "relu" else SMOOTH[name]()
