"""A whole classifier as one ordinary differential equation: the image is its start, the class scores lie in its end."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.architectures.mlp import ACTIVATIONS
from buttress.registry import model
from buttress.validation import one_of, positive, whole


class SNODE(nn.Module):
    """dx/dt = sigma(W(t) x + b(t)) over [0, T], by Euler steps of length h (Jaroudi et al., arXiv 2205.13933).

    The state has d numbers, those of the flattened image, and is read at T: the logits are its first coordinates. W and
    b are constant within a step, one each for the N = T / h steps.

    Attributes:
        weight: (N, d, d), W in the middle of each step.
        bias: (N, d), b likewise.
        h: length of a step.
        steps: N.
        size: d.

    Args:
        classes: number of classes, at most d.
        shape: of an image, (channels, height, width).
        pool: side of the squares of pixels that are averaged first; 1 for none.
        time: T.
        resolution: steps per unit time.
        activation: sigma, elementwise.
        background: pixel value of an empty image, 0 or 1: it becomes 0 in the state, the other end becomes -1.
    """

    def __init__(
        self,
        classes: int,
        shape: tuple[int, int, int],
        pool: int,
        time: float,
        resolution: int,
        activation: nn.Module,
        background: int,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.classes, self.shape, self.image_size, self.background = classes, shape, height, background
        self.time, self.resolution, self.h = time, resolution, 1 / resolution
        self.steps = round(time * resolution)
        self.size = channels * (height // pool) * (width // pool)
        self.pool = nn.AvgPool2d(pool)
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(self.steps, self.size, self.size))
        self.bias = nn.Parameter(torch.empty(self.steps, self.size))
        self.reset()

    def reset(self) -> None:
        """Draw W and b anew: normal with standard deviation 1 / d at each whole time, a cubic spline in between."""
        spline = spline_matrix(self.time, self.resolution).to(self.weight)
        for parameter in (self.weight, self.bias):
            values = torch.randn(spline.shape[1], *parameter.shape[1:], dtype=parameter.dtype) / self.size
            with torch.no_grad():
                parameter.copy_(torch.tensordot(spline, values.to(parameter), dims=1))

    def encode(self, x: Tensor) -> Tensor:
        """(N, d) the states at time 0 of images (N, channels, height, width).

        Raises:
            UserError: for images of another shape.
        """
        if x.shape[1:] != self.shape:
            channels, height, width = self.shape
            shape, content = "x".join(map(str, x.shape)), f"{channels} channel" + "s" * (channels > 1)
            raise UserError(
                f"SNODE cannot take inputs of shape {shape}: its first layer, the state at time 0, takes {content} of "
                f"{height}x{width} pixels; give such inputs, or a model made for these"
            )
        pixels: Tensor = self.pool(x)
        return -pixels.flatten(1) if self.background == 0 else pixels.flatten(1) - 1

    def end(self, state: Tensor, halves: int = 1) -> Tensor:
        """(N, d) the states at time T of those at time 0; ``halves`` Euler steps are made in place of each."""
        h = self.h / halves
        for weight, bias in zip(self.weight, self.bias, strict=True):
            for _ in range(halves):
                state = torch.add(state, self.activation(nn.functional.linear(state, weight, bias)), alpha=h)
        return state

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, height, width)."""
        return self.end(self.encode(x))[:, : self.classes]

    def attack_variants(self) -> dict[str, nn.Module]:
        """This network, on its own weights, with its equation solved by steps of half the length."""
        return {"finer solver": _Finer(self)}

    def extra_repr(self) -> str:
        """Sizes."""
        return f"size={self.size}, classes={self.classes}, time={self.time:g}, resolution={self.resolution}"


class _Finer(nn.Module):
    """A network with two steps in place of one."""

    def __init__(self, network: SNODE) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits as of the network."""
        return self.network.end(self.network.encode(x), halves=2)[:, : self.network.classes]


def spline_matrix(time: float, resolution: int) -> Tensor:
    """(N, K) float64, what takes values at the times 0, 1, ... to those in the middle of each step.

    A cubic spline whose third derivative is continuous at the last but one knots (a polynomial where there are fewer
    than five). There are as many knots as are needed to reach ``time``.
    """
    from scipy.interpolate import CubicSpline

    knots = torch.arange(math.ceil(time - 1e-9) + 1, dtype=torch.float64)
    times = (torch.arange(round(time * resolution), dtype=torch.float64) + 0.5) / resolution
    spline = CubicSpline(knots.numpy(), torch.eye(len(knots), dtype=torch.float64).numpy())
    return torch.from_numpy(spline(times.numpy()))


def roughness(values: Tensor) -> float:
    """The sum over all steps of the squared change from one step to the next: how rough W is along time."""
    return float(values.detach().double().diff(dim=0).square().sum())


@model("snode")
def snode(
    *,
    classes: int = 10,
    channels: int = 1,
    image_size: int = 8,
    pool: int = 1,
    time: float = 3.0,
    resolution: int = 50,
    activation: str = "tanh",
    background: int = 0,
) -> nn.Module:
    """A standalone neural ODE (Jaroudi et al., arXiv 2205.13933).

    It has N d (d + 1) parameters: 5,791,800 as published (28x28 images averaged to 14x14, so d = 196, T = 3 and 50
    steps per unit time), 624,000 with the defaults on 8x8 images. Trained by the defence ``standard`` it is what the
    paper calls the ResNet analog; ``snode-ncg`` trains it as published. The spline follows the paper, its kind and the
    times at which it is read are our choice.

    Args:
        classes: number of classes.
        channels: channels of the images.
        image_size: height and width of the images in pixels.
        pool: side of the squares of pixels that are averaged first, 2 for 28x28 images as published.
        time: T, where the state is read.
        resolution: Euler steps per unit time; time times this must be a whole number. 20 is quick on a CPU.
        activation: tanh as published, or another of those of mlp. With one that is nowhere negative, such as relu, no
            coordinate can fall: logits only rise.
        background: pixel value of an empty image, 0 or 1. It becomes 0 in the state, and the other end -1.
    """
    whole("background", background, 0, 1)
    steps = whole("resolution", resolution, 1) * positive("time", time)
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
        raise UserError(f"time {time:g} at resolution {resolution} makes {steps:g} steps: give a whole number of them")
    classes, channels = whole("classes", classes, 2), whole("channels", channels, 1)
    side, pool = whole("image_size", image_size, 1), whole("pool", pool, 1)
    if side % pool:
        raise UserError(f"pool must divide the image_size, {side}; got {pool}")
    size = channels * (side // pool) ** 2
    if classes > size:
        raise UserError(f"{classes} classes need a state of as many numbers; images of this size give {size}")
    shape = (channels, side, side)
    sigma = ACTIVATIONS[one_of("activation", activation, ACTIVATIONS)]()
    return SNODE(classes, shape, pool, float(time), resolution, sigma, background)
