"""Networks with channel selection (CIFS, CAS) in their last blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.architectures.resnet import ResNet
from buttress.models.architectures.wide_resnet import WideBlock, WideResNet
from buttress.models.blocks.channel_selection import (
    ChannelSelection,
    ChannelSuppression,
    Mask,
    MaskName,
    ProbeName,
    Scale,
    Selection,
)
from buttress.models.blocks.channel_selection_training import Selective
from buttress.registry import model
from buttress.validation import not_negative, number, one_of, switch, whole

SelectionName = Literal["none", "cifs", "cas"]


class SelectiveResNet(Selective, ResNet):
    """A ResNet with a selection after each block of its last stage; the other weights have a `ResNet`'s names."""

    def __init__(self, classes: int, channels: int, width: int, selections: Sequence[Selection], beta: float) -> None:
        super().__init__((2, 2, 2, 2), classes, channels, width)
        self.selections, self.beta = nn.ModuleList(selections), beta

    def answers(self, x: Tensor, y: Tensor | None = None, detach: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(N, K) logits of images (N, channels, H, W) of any size, and those of each probe."""
        h = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
        probes = []
        for block, select in zip(self.layer4, self.selections, strict=True):
            h, probe = select(block(h), y, detach)
            probes.append(probe)
        return self.linear(self.pool(h).flatten(1)), probes


class SelectiveWideResNet(Selective, WideResNet):
    """A wide residual network with two selections; the other weights have a `WideResNet`'s names.

    They are at the first activation of the last block, and at the last activation of the network.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        classes: int,
        channels: int,
        dropout: float,
        selections: Sequence[Selection],
        beta: float,
    ) -> None:
        super().__init__(depth, width, classes, channels, dropout)
        self.selections, self.beta = nn.ModuleList(selections), beta

    def answers(self, x: Tensor, y: Tensor | None = None, detach: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(N, K) logits of images (N, channels, H, W) of any size, and those of each probe."""
        *blocks, last = self.block3.layer
        h = self.block2(self.block1(self.conv1(x)))
        for block in blocks:
            h = block(h)
        h, first = self._last(cast(WideBlock, last), h, y, detach)
        h, second = self.selections[1](self.relu(self.bn1(h)), y, detach)
        return self.fc(self.pool(h).flatten(1)), [first, second]

    def _last(self, block: WideBlock, x: Tensor, y: Tensor | None, detach: bool) -> tuple[Tensor, Tensor]:
        """What the block computes, its first activation being masked; a projection starts from what is masked."""
        h, probe = self.selections[0](block.relu1(block.bn1(x)), y, detach)
        beside = x if block.convShortcut is None else block.convShortcut(h)
        return block.conv2(block.dropout(block.relu2(block.bn2(block.conv1(h))))) + beside, probe


class SelectiveCNN(Selective):
    """Four 3x3 convolutions, each with BatchNorm and ReLU, poolings after two, selections after the other two."""

    def __init__(self, classes: int, channels: int, width: int, selections: Sequence[Selection], beta: float) -> None:
        super().__init__()
        filters = [channels, *(width * 2**k for k in range(4))]
        for k in range(4):
            self.add_module(f"conv{k + 1}", nn.Conv2d(filters[k], filters[k + 1], 3, padding=1, bias=False))
            self.add_module(f"bn{k + 1}", nn.BatchNorm2d(filters[k + 1]))
            self.add_module(f"relu{k + 1}", nn.ReLU())
        self.pool1, self.pool2, self.pool = nn.MaxPool2d(2), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(filters[4], classes)
        self.selections, self.beta = nn.ModuleList(selections), beta

    def answers(self, x: Tensor, y: Tensor | None = None, detach: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(N, K) logits of images (N, channels, H, W) of 4x4 pixels and more, and those of each probe."""
        h = self.pool2(self._block(2, self.pool1(self._block(1, x))))
        probes = []
        for k in (3, 4):
            h = self._block(k, h)
            if self.selections:
                h, probe = self.selections[k - 3](h, y, detach)
                probes.append(probe)
        return self.linear(self.pool(h).flatten(1)), probes

    def _block(self, k: int, h: Tensor) -> Tensor:
        for part in ("conv", "bn", "relu"):
            h = self.get_submodule(f"{part}{k}")(h)
        return h


@dataclass(frozen=True)
class _SelectionOptions:
    """The factories' options for the selections."""

    selection: SelectionName
    hidden: int = 128
    k: int = 2
    mask: MaskName = "softmax"
    sharpness: float = 1.0
    shift: float = 0.0
    power: float = 1.0
    scale: Scale = 1.0
    detach: bool = True

    def build(self, channels: Sequence[int], classes: int) -> list[Selection]:
        """One selection for each number of channels: the last has the linear probe, those before the nonlinear one."""
        one_of("selection", self.selection, get_args(SelectionName))
        switch("detach", self.detach)
        if self.selection == "none":
            return []
        if self.selection == "cas":
            return [ChannelSuppression(count, classes) for count in channels]
        *before, last = channels
        first = [self._selection(count, classes, "nonlinear") for count in before]
        return [*first, self._selection(last, classes, "linear")]

    def _selection(self, channels: int, classes: int, probe: ProbeName) -> Selection:
        mask = Mask(self.mask, self.sharpness, self.shift, self.power, self.scale)
        return ChannelSelection(
            channels, classes, probe=probe, hidden=self.hidden, k=self.k, mask=mask, detach=self.detach
        )


@model("cifs-resnet18")
def cifs_resnet18(
    *,
    classes: int = 10,
    channels: int = 3,
    width: int = 64,
    beta: float = 2.0,
    hidden: int = 128,
    k: int = 2,
    mask: MaskName = "softmax",
    sharpness: float = 1.0,
    shift: float = 0.0,
    power: float = 1.0,
    scale: Scale = 1.0,
    detach: bool = True,
) -> nn.Module:
    """ResNet-18 in its CIFAR form with CIFS after both blocks of the last stage (Yan et al., ICML 2021).

    The first has the nonlinear probe, the second the linear one. The defaults are those of the authors' code. Its plain
    twin is resnet18.

    Args:
        classes: number of classes.
        channels: channels of the images.
        width: filters of the first stage, doubled in each of the next three; 16 gives a network for the CPU.
        beta: weight of the probes in training.
        hidden: width of the nonlinear probe.
        k: classes that count in a mask.
        mask: softmax, softmax-sum, softmax-abs, sigmoid, softplus or relu; see `Mask`.
        sharpness: of the mask; 1 / sharpness is the temperature of a softmax.
        shift: of the mask "sigmoid".
        power: of the mask "softplus".
        scale: what masks are multiplied by: a number, "k", or "channels", with which a softmax keeps features' size.
        detach: whether masks give no gradient to the features, as published.
    """
    classes, channels, width = whole("classes", classes, 2), whole("channels", channels, 1), whole("width", width, 1)
    options = _SelectionOptions("cifs", hidden, k, mask, sharpness, shift, power, scale, detach)
    return SelectiveResNet(
        classes, channels, width, options.build([8 * width] * 2, classes), not_negative("beta", beta)
    )


@model("cas-resnet18")
def cas_resnet18(*, classes: int = 10, channels: int = 3, width: int = 64, beta: float = 2.0) -> nn.Module:
    """ResNet-18 in its CIFAR form with CAS after both blocks of the last stage (Bai et al., ICLR 2021).

    The baseline of the CIFS paper; where CAS itself places its module, and how much, is that paper's.

    Args:
        classes: number of classes.
        channels: channels of the images.
        width: filters of the first stage, doubled in each of the next three.
        beta: weight of the probes in training.
    """
    classes, channels, width = whole("classes", classes, 2), whole("channels", channels, 1), whole("width", width, 1)
    selections = _SelectionOptions("cas").build([8 * width] * 2, classes)
    return SelectiveResNet(classes, channels, width, selections, not_negative("beta", beta))


@model("cifs-wrn")
def cifs_wrn(
    *,
    depth: int = 28,
    width: int = 10,
    classes: int = 10,
    channels: int = 3,
    dropout: float = 0.0,
    beta: float = 2.0,
    hidden: int = 240,
    k: int = 2,
    mask: MaskName = "softmax",
    sharpness: float = 1.0,
    shift: float = 0.0,
    power: float = 1.0,
    scale: Scale = 1.0,
    detach: bool = True,
) -> nn.Module:
    """Wide residual network WRN-depth-width with two CIFS; its plain twin is wrn.

    Args:
        depth: number of layers, 6 n + 4.
        width: what the 16, 32 and 64 filters of the three stages are multiplied by; 1 gives a network for the CPU.
        classes: number of classes.
        channels: channels of the images.
        dropout: rate of dropout between the two convolutions of a block.
        beta: weight of the probes in training; this option and those below as in ``cifs-resnet18``.
        hidden: width of the nonlinear probe.
        k: classes that count in a mask.
        mask: what turns relevances into weights.
        sharpness: of the mask.
        shift: of the mask "sigmoid".
        power: of the mask "softplus".
        scale: what masks are multiplied by.
        detach: whether masks give no gradient to the features.
    """
    classes, channels, width = whole("classes", classes, 2), whole("channels", channels, 1), whole("width", width, 1)
    if (whole("depth", depth, 10) - 4) % 6:
        raise UserError(f"depth must be 6 n + 4 (10, 16, 22, 28, 34, ...); got {depth}")
    options = _SelectionOptions("cifs", hidden, k, mask, sharpness, shift, power, scale, detach)
    inputs = 64 * width if depth > 10 else 32 * width  # of the last block; with one block a stage, the stage before's
    selections = options.build([inputs, 64 * width], classes)
    return SelectiveWideResNet(
        depth, width, classes, channels, number("dropout", dropout, "[0, 1)"), selections, not_negative("beta", beta)
    )


@model("cifs-cnn")
def cifs_cnn(
    *,
    classes: int = 10,
    channels: int = 1,
    width: int = 16,
    selection: SelectionName = "cifs",
    beta: float = 2.0,
    hidden: int = 128,
    k: int = 2,
    mask: MaskName = "softmax",
    sharpness: float = 1.0,
    shift: float = 0.0,
    power: float = 1.0,
    scale: Scale = 1.0,
    detach: bool = True,
) -> nn.Module:
    """A small CNN of four convolutions for a CPU, our own, with CIFS, CAS or nothing after the last two.

    Args:
        classes: number of classes.
        channels: channels of the images, of 4x4 pixels and more.
        width: filters of the first convolution, doubled in each of the next three.
        selection: "cifs", "cas", or "none" for the plain twin; the options below are those of "cifs".
        beta: weight of the probes in training, of "cas" too; this option and those below as in ``cifs-resnet18``.
        hidden: width of the nonlinear probe.
        k: classes that count in a mask.
        mask: what turns relevances into weights.
        sharpness: of the mask.
        shift: of the mask "sigmoid".
        power: of the mask "softplus".
        scale: what masks are multiplied by.
        detach: whether masks give no gradient to the features.
    """
    classes, channels, width = whole("classes", classes, 2), whole("channels", channels, 1), whole("width", width, 1)
    options = _SelectionOptions(selection, hidden, k, mask, sharpness, shift, power, scale, detach)
    return SelectiveCNN(
        classes, channels, width, options.build([4 * width, 8 * width], classes), not_negative("beta", beta)
    )
