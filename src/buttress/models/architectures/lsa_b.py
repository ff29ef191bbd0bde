"""Model B of the LSA paper: a small convolutional network for MNIST."""

from __future__ import annotations

from torch import Tensor, nn

from buttress.registry import model
from buttress.validation import whole


class LSAB(nn.Module):
    """Three 5x5 convolutions without padding (16, 32, 64 filters) and two linear layers.

    Khalooei et al., arXiv 2202.02626, model B ("CNN, MNIST").
    """

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        side = ((image_size - 8) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(channels, 16, 5)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(32, 64, 5)
        self.relu3 = nn.ReLU()
        self.pool3 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(64 * side * side, 100)
        self.relu4 = nn.ReLU()
        self.fc2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, image_size, image_size)."""
        h = self.relu1(self.conv1(x))
        h = self.pool2(self.relu2(self.conv2(h)))
        h = self.pool3(self.relu3(self.conv3(h)))
        logits: Tensor = self.fc2(self.relu4(self.fc1(h.flatten(1))))
        return logits


@model("lsa-b")
def lsa_b(*, classes: int = 10, channels: int = 1, image_size: int = 28) -> nn.Module:
    """Model B of the LSA paper, a CNN for MNIST.

    Args:
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        image_size: height and width of the images in pixels, at least 20.
    """
    return LSAB(whole("classes", classes, 1), whole("channels", channels, 1), whole("image_size", image_size, 20))
