"""SmallCNN of TRADES, a convolutional network for MNIST."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from buttress.registry import model
from buttress.validation import number, whole


class SmallCNN(nn.Module):
    """Four 3x3 convolutions without padding and three linear layers, the last of which starts at zero.

    Zhang et al., arXiv 1901.08573. Parameter names are those of the authors' checkpoints (``feature_extractor``,
    ``classifier``).
    """

    def __init__(self, classes: int, channels: int, image_size: int, dropout: float) -> None:
        super().__init__()
        self.image_size = image_size
        side = ((image_size - 4) // 2 - 4) // 2
        self.feature_extractor = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(channels, 32, 3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 32, 3),
                relu2=nn.ReLU(),
                maxpool1=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 64, 3),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(64, 64, 3),
                relu4=nn.ReLU(),
                maxpool2=nn.MaxPool2d(2),
            )
        )
        last = nn.Linear(200, classes)
        self.classifier = nn.Sequential(
            OrderedDict[str, nn.Module](
                fc1=nn.Linear(64 * side * side, 200),
                relu1=nn.ReLU(),
                drop=nn.Dropout(dropout),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=last,
            )
        )
        for layer in self.feature_extractor:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, image_size, image_size)."""
        logits: Tensor = self.classifier(self.feature_extractor(x).flatten(1))
        return logits


@model("smallcnn")
def smallcnn(*, classes: int = 10, channels: int = 1, image_size: int = 28, dropout: float = 0.5) -> nn.Module:
    """SmallCNN of TRADES, for MNIST.

    Args:
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        image_size: height and width of the images in pixels, at least 16.
        dropout: rate of dropout after the first linear layer.
    """
    classes, channels = whole("classes", classes, 1), whole("channels", channels, 1)
    return SmallCNN(classes, channels, whole("image_size", image_size, 16), number("dropout", dropout, "[0, 1)"))
