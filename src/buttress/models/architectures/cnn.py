"""A small convolutional network for images of 4x4 pixels and more, quick on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from buttress.registry import model
from buttress.validation import whole


class CNN(nn.Module):
    """Two padded 3x3 convolutions, each with a pooling after it, and two linear layers."""

    def __init__(self, classes: int, channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.image_size = image_size
        side = image_size // 4
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(2 * width * side * side, 4 * width)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, image_size, image_size)."""
        h = self.pool1(self.relu1(self.conv1(x)))
        h = self.pool2(self.relu2(self.conv2(h)))
        logits: Tensor = self.fc2(self.relu3(self.fc1(h.flatten(1))))
        return logits


@model("cnn")
def cnn(*, classes: int = 10, channels: int = 1, image_size: int = 8, width: int = 16) -> nn.Module:
    """A small CNN for images of 8x8 to 32x32 pixels.

    Args:
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        image_size: height and width of the images in pixels, at least 4.
        width: filters of the first convolution; the second has twice, the hidden linear layer four times as many.
    """
    classes, channels = whole("classes", classes, 1), whole("channels", channels, 1)
    return CNN(classes, channels, whole("image_size", image_size, 4), whole("width", width, 1))
