"""VGG-19 for 32x32 images with batch normalisation: model C of the LSA paper."""

from __future__ import annotations

from torch import Tensor, nn

from buttress.registry import model
from buttress.validation import number, whole

# Filters of the 16 convolutions, stage by stage; a maximum over 2x2 pixels ends each stage.
VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


class VGG(nn.Module):
    """3x3 convolutions with batch normalisation, five poolings, one linear layer: the form usual on CIFAR-10.

    Simonyan and Zisserman, arXiv 1409.1556, configuration E, without its hidden linear layers. Parameter names are
    those of the public CIFAR checkpoints (``features.N``, ``classifier``).
    """

    def __init__(self, stages: tuple[tuple[int, ...], ...], classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in stages:
            for filters in stage:
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            # ceil_mode changes nothing at 32x32 and lets images through whose side is no multiple of 32.
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W) of any size."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


@model("vgg19")
def vgg19(*, classes: int = 10, channels: int = 3, width: float = 1.0) -> nn.Module:
    """VGG-19 with batch normalisation in its CIFAR form, model C of the LSA paper.

    Args:
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        channels: channels of the images.
        width: what the number of filters of every layer is multiplied by; 0.25 gives a network for the CPU.
    """
    number("width", width, "[0.015625, 64]")
    stages = tuple(tuple(round(filters * width) for filters in stage) for stage in VGG19)
    return VGG(stages, whole("classes", classes, 1), whole("channels", channels, 1))
