"""ResNet-18 for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from buttress.registry import model
from buttress.validation import whole


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, batch normalisation after each convolution."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != filters:
            self.shortcut.append(nn.Conv2d(inputs, filters, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(filters))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, filters, H / stride, W / stride) of features (N, inputs, H, W)."""
        h = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(h + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Residual network with a 3x3 stem and no pooling before the first stage, as is usual on CIFAR-10.

    He et al., arXiv 1512.03385. Parameter names are those of the public CIFAR checkpoints.
    """

    def __init__(self, blocks: tuple[int, int, int, int], classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks[0], width, width, stride=1)
        self.layer2 = _stage(blocks[1], width, 2 * width, stride=2)
        self.layer3 = _stage(blocks[2], 2 * width, 4 * width, stride=2)
        self.layer4 = _stage(blocks[3], 4 * width, 8 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W) of any size."""
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        logits: Tensor = self.linear(self.pool(h).flatten(1))
        return logits


def _stage(blocks: int, inputs: int, filters: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, filters, stride)
    return nn.Sequential(first, *(BasicBlock(filters, filters, 1) for _ in range(blocks - 1)))


@model("resnet18")
def resnet18(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """ResNet-18 in its CIFAR form.

    Args:
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        width: filters of the first stage, doubled in each of the next three; 16 gives a network for the CPU.
    """
    return ResNet((2, 2, 2, 2), whole("classes", classes, 1), whole("channels", channels, 1), whole("width", width, 1))
