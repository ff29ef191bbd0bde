"""ZeroSNet: residual networks whose blocks are steps of a linear multistep method, and their relatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from buttress.models.blocks.multistep import ORDINARY, Discretisation
from buttress.models.blocks.multistep import discretisation as scheme_of
from buttress.registry import model
from buttress.validation import switch, whole

Shape = tuple[int, int]  # of a state: channels, and how often the image's side was halved
_EXPANSION = 4  # of a bottleneck's planes


class MultistepBlock(nn.Module):
    """One step, ``a0 y_n + a1 y_{n-1} + a2 y_{n-2} + b0 f(y_n)``, with nothing after the sum.

    A state that is read and has another shape than the result goes through a 1x1 convolution of its own first. What
    comes out is that state from then on, except for a block at the start, which hands on its input as it is.

    Args:
        states: shapes of the states at hand, the newest first.
        planes: filters of f, a quarter of its output's channels with ``bottleneck``.
        halvings: of the image's side after this block.
        scheme: gives the coefficients.
        bottleneck: f of 1x1, 3x3 and 1x1 convolutions in the place of two 3x3 ones.
        start: an ordinary residual block, for want of earlier states; with a batch normalisation and a ReLU before its
            projection, where it needs one.

    Attributes:
        after: shapes of the states that it returns.
    """

    def __init__(
        self,
        states: Sequence[Shape],
        planes: int,
        halvings: int,
        scheme: Discretisation,
        bottleneck: bool,
        start: bool,
    ) -> None:
        super().__init__()
        self.start = start
        self.scheme = ORDINARY if start else scheme
        self.k = None if self.scheme.k is None else nn.Parameter(torch.tensor(self.scheme.k))
        (channels, before), width = states[0], planes * (_EXPANSION if bottleneck else 1)
        self.residual = _residual(channels, planes, 2 ** (halvings - before), bottleneck)
        self.reads = [lag for lag in self.scheme.reads if lag < len(states)]
        here = (width, halvings)
        self.projections = nn.ModuleDict(
            {str(lag): _projection(states[lag], here, start) for lag in self.reads if states[lag] != here}
        )
        shaped = [here if lag in self.reads else shape for lag, shape in enumerate(states)]
        self.after = [here, *(states if start else shaped)][:3]

    def coefficients(self) -> Sequence[float | Tensor]:
        """a0, a1, a2 and b0 as they are now, with their gradients where they are trained."""
        if self.scheme.rule is None or self.k is None:
            return self.scheme.coefficients
        return self.scheme.rule(self.k)

    def values(self) -> tuple[float, ...]:
        """The same as plain numbers, computed in float64 lest rounding hides a root on the unit circle."""
        if self.scheme.rule is None or self.k is None:
            return self.scheme.coefficients
        return tuple(float(value) for value in self.scheme.rule(self.k.detach().double()))

    def forward(self, *states: Tensor) -> tuple[Tensor, ...]:
        """The next state and those before it, of given states (N, C, H, W), the newest first; three at most."""
        weights = self.coefficients()
        shaped = list(states)
        for name, projection in self.projections.items():
            shaped[int(name)] = projection(states[int(name)])
        y = weights[3] * self.residual(states[0])
        for lag in self.reads:
            y = y + weights[lag] * shaped[lag]
        return (y, *(states if self.start else shaped))[:3]


class ZeroSNet(nn.Module):
    """A residual network of multistep blocks in three stages, as is usual on CIFAR-10.

    Chen, Jin and Shang, AAAI 2022, arXiv 2206.13100. The history that a block reads are the inputs of the blocks before
    it. Convolutions start with He's normal weights, by their outputs.

    Args:
        blocks: of each stage.
        classes: number of classes.
        channels: of the images.
        width: planes of the first stage, doubled in each of the next two.
        scheme: of every block but those at the start.
        bottleneck: see `MultistepBlock`.
    """

    def __init__(
        self, blocks: int, classes: int, channels: int, width: int, scheme: Discretisation, bottleneck: bool
    ) -> None:
        super().__init__()
        self.depth = 3 * (3 if bottleneck else 2) * blocks + 2
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        states: list[Shape] = [(width, 0)]
        for index in range(3 * blocks):
            stage, start = index // blocks, index < scheme.start
            block = MultistepBlock(states, width * 2**stage, stage, scheme, bottleneck, start)
            self.blocks.append(block)
            states = block.after
        last = states[0][0]
        self.bn = nn.BatchNorm2d(last)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W) of any size."""
        states: tuple[Tensor, ...] = (self.conv1(x),)
        for block in self.blocks:
            states = block(*states)
        logits: Tensor = self.fc(self.pool(self.relu(self.bn(states[0]))).flatten(1))
        return logits


def _before(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _residual(channels: int, planes: int, stride: int, bottleneck: bool) -> nn.Sequential:
    """The function f, batch normalisation and ReLU before each convolution."""
    if not bottleneck:
        first = nn.Conv2d(channels, planes, 3, stride=stride, padding=1, bias=False)
        second = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        return nn.Sequential(*_before(channels), first, *_before(planes), second)
    narrow = nn.Conv2d(channels, planes, 1, bias=False)
    middle = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
    wide = nn.Conv2d(planes, _EXPANSION * planes, 1, bias=False)
    return nn.Sequential(*_before(channels), narrow, *_before(planes), middle, *_before(planes), wide)


def _projection(state: Shape, here: Shape, activated: bool) -> nn.Sequential:
    (channels, before), (width, after) = state, here
    projection = nn.Conv2d(channels, width, 1, stride=2 ** (after - before), bias=False)
    return nn.Sequential(*(_before(channels) if activated else []), projection)


@model("zerosnet")
def zerosnet(
    *,
    classes: int = 10,
    channels: int = 3,
    blocks: int = 3,
    width: int = 16,
    discretisation: str | float | Sequence[float] = "opt",
    k: float | None = None,
    bottleneck: bool = False,
) -> nn.Module:
    """ZeroSNet in its CIFAR form, with 6 blocks + 2 layers; 9 blocks + 2 with bottlenecks.

    Fixed coefficients of 0 read no state, so no projections are made for it. The published code has no form for one
    block a stage; here a block at the start that changes stage then has a projection as a bottleneck's first has.

    Args:
        classes: number of classes.
        channels: channels of the images.
        blocks: of each of the three stages; 3, 5, 7, 9 and 18 as published, 18 to 144 with bottlenecks.
        width: planes of the first stage, doubled in each of the next two.
        discretisation: how blocks step. "opt": the three-step method with the smallest parasitic roots; "tra": a
            three-step method whose k every block trains, without any bound; a number: the three-step method of this k,
            stable for k <= -1 and k > 1/3; four numbers: a0, a1, a2 and b0. For comparison "resnet", ordinary blocks;
            "lm", LM-ResNet's two steps with a trained k; "leapfrog", on the edge of stability; "unstable", 1, 1, 1, 1.
        k: initial value of what "tra" (1 unless given) and "lm" (0, an ordinary block, unless given) train. The paper
            starts "tra" from -9/5 on ImageNet.
        bottleneck: blocks of three convolutions with four times the width between them.
    """
    switch("bottleneck", bottleneck)
    scheme = scheme_of(discretisation, k)
    classes, channels = whole("classes", classes, 2), whole("channels", channels, 1)
    return ZeroSNet(whole("blocks", blocks, 1), classes, channels, whole("width", width, 1), scheme, bottleneck)
