"""A convolutional network with strides and no pooling, as certified training and verifiers use it."""

from __future__ import annotations

from torch import nn

from buttress.registry import model
from buttress.validation import whole


class StridedCNN(nn.Sequential):
    """Two 4x4 convolutions of stride 2 and two linear layers, each but the last with a ReLU after it.

    With width 16 that of Wong and Kolter (ICML 2018) for MNIST, whose parameter names it has (``0``, ``2``, ``5``,
    ``7``). Takes images (N, channels, image_size, image_size), and returns logits (N, classes).
    """

    def __init__(self, classes: int, channels: int, image_size: int, width: int) -> None:
        side = image_size // 4
        super().__init__(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * side * side, 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )
        self.image_size = image_size


@model("strided-cnn")
def strided_cnn(*, classes: int = 10, channels: int = 1, image_size: int = 28, width: int = 16) -> nn.Module:
    """A small CNN with strides in place of pooling, for images of 4x4 pixels and more; quick to certify.

    Args:
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        image_size: height and width of the images in pixels, at least 4.
        width: filters of the first convolution; the second has twice as many.
    """
    classes, channels = whole("classes", classes, 1), whole("channels", channels, 1)
    return StridedCNN(classes, channels, whole("image_size", image_size, 4), whole("width", width, 1))
