"""Wide residual networks (WRN-depth-width): model D of the LSA paper."""

from __future__ import annotations

import math

from torch import Tensor, nn

from buttress.errors import UserError
from buttress.registry import model
from buttress.validation import number, whole


class WideBlock(nn.Module):
    """Pre-activation block of two 3x3 convolutions; a 1x1 convolution beside it where the shape changes."""

    def __init__(self, inputs: int, filters: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.convShortcut: nn.Conv2d | None = None
        if stride != 1 or inputs != filters:
            self.convShortcut = nn.Conv2d(inputs, filters, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, filters, H / stride, W / stride) of features (N, inputs, H, W)."""
        h = self.relu1(self.bn1(x))
        # A projection starts from the activation, an identity from the input itself.
        beside = x if self.convShortcut is None else self.convShortcut(h)
        h = self.dropout(self.relu2(self.bn2(self.conv1(h))))
        out: Tensor = self.conv2(h) + beside
        return out


class WideStage(nn.Module):
    """Blocks of one width; ``layer`` holds them, as in the public checkpoints."""

    def __init__(self, blocks: int, inputs: int, filters: int, stride: int, dropout: float) -> None:
        super().__init__()
        first = WideBlock(inputs, filters, stride, dropout)
        self.layer = nn.Sequential(first, *(WideBlock(filters, filters, 1, dropout) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, filters, H / stride, W / stride) of features (N, inputs, H, W)."""
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """WRN-depth-width with three stages of (depth - 4) / 6 blocks and 16, 32, 64 times width filters.

    Zagoruyko and Komodakis, arXiv 1605.07146. Parameter names are those of the public CIFAR checkpoints
    (``block1.layer.0.conv1``, ``bn1``, ``fc``).
    """

    def __init__(self, depth: int, width: int, classes: int, channels: int, dropout: float) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        filters = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(channels, filters[0], 3, padding=1, bias=False)
        self.block1 = WideStage(blocks, filters[0], filters[1], 1, dropout)
        self.block2 = WideStage(blocks, filters[1], filters[2], 2, dropout)
        self.block3 = WideStage(blocks, filters[2], filters[3], 2, dropout)
        self.bn1 = nn.BatchNorm2d(filters[3])
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(filters[3], classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                outgoing = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / outgoing))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W) of any size."""
        h = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.pool(self.relu(self.bn1(h))).flatten(1))
        return logits


@model("wrn")
def wrn(*, depth: int = 28, width: int = 10, classes: int = 10, channels: int = 3, dropout: float = 0.0) -> nn.Module:
    """Wide residual network WRN-depth-width; WRN-28-10 is model D of the LSA paper.

    Args:
        depth: number of layers, 6 n + 4.
        width: what the 16, 32 and 64 filters of the three stages are multiplied by; 1 gives a network for the CPU.
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        dropout: rate of dropout between the two convolutions of a block.
    """
    if (whole("depth", depth, 10) - 4) % 6:
        raise UserError(f"depth must be 6 n + 4 (10, 16, 22, 28, 34, ...); got {depth}")
    classes, channels, width = whole("classes", classes, 1), whole("channels", channels, 1), whole("width", width, 1)
    return WideResNet(depth, width, classes, channels, number("dropout", dropout, "[0, 1)"))
