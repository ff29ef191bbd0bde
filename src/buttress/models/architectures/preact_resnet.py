"""PreActResNet-18 for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from buttress.registry import model
from buttress.validation import switch, whole


class PreActBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, batch normalisation and ReLU before each convolution."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or inputs != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, filters, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, filters, H / stride, W / stride) of features (N, inputs, H, W)."""
        h = self.relu1(self.bn1(x))
        # A projection starts from the activation, an identity from the input itself.
        beside = x if self.shortcut is None else self.shortcut(h)
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(h)))) + beside
        return out


class PreActResNet(nn.Module):
    """Residual network with pre-activation blocks and a 3x3 stem, as is usual on CIFAR-10.

    He et al., arXiv 1603.05027. Parameter names are those of the public CIFAR checkpoints, with and without the
    batch normalisation ``bn`` before the pooling.
    """

    def __init__(self, blocks: tuple[int, int, int, int], classes: int, channels: int, width: int, final: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.layer1 = _stage(blocks[0], width, width, stride=1)
        self.layer2 = _stage(blocks[1], width, 2 * width, stride=2)
        self.layer3 = _stage(blocks[2], 2 * width, 4 * width, stride=2)
        self.layer4 = _stage(blocks[3], 4 * width, 8 * width, stride=2)
        self.bn = nn.BatchNorm2d(8 * width) if final else nn.Identity()
        self.relu = nn.ReLU() if final else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W) of any size."""
        h = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        logits: Tensor = self.linear(self.pool(self.relu(self.bn(h))).flatten(1))
        return logits


def _stage(blocks: int, inputs: int, filters: int, stride: int) -> nn.Sequential:
    first = PreActBlock(inputs, filters, stride)
    return nn.Sequential(first, *(PreActBlock(filters, filters, 1) for _ in range(blocks - 1)))


@model("preactresnet18")
def preactresnet18(
    *, classes: int = 10, channels: int = 3, width: int = 64, final_activation: bool = False
) -> nn.Module:
    """PreActResNet-18 in its CIFAR form.

    Args:
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        width: filters of the first stage, doubled in each of the next three; 16 gives a network for the CPU.
        final_activation: batch normalisation and ReLU before the pooling, as in the paper; the form of most public
            checkpoints has none.
    """
    switch("final_activation", final_activation)
    classes, channels, width = whole("classes", classes, 1), whole("channels", channels, 1), whole("width", width, 1)
    return PreActResNet((2, 2, 2, 2), classes, channels, width, final_activation)
