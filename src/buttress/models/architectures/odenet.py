"""A neural ODE as the representation block of a small CNN, its steady-state form, and the matched residual CNN."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor, nn

from buttress.models.blocks.ode import ODEBlock
from buttress.models.blocks.ode_network import BlockNet, Dynamics, ODENet, Residual, feature_extractor
from buttress.models.blocks.steady_state import WINDOWS, SteadyBlock
from buttress.registry import model
from buttress.validation import not_negative, one_of, positive, whole

Norm = Literal["mean", "l2"]


class TisODE(ODENet):
    """An `ODENet` whose dynamics do not know the time, and are trained to keep still after it (Yan et al., ICLR 2020).

    Args:
        extractor: as of `BlockNet`, this and the last two.
        block: the equation, with its window.
        width: channels.
        classes: number of classes.
        weight: of the steady-state term in the loss.
        norm: how S becomes a number: "mean" of all elements, or "l2", the norm of each input's S, meant over the batch.
    """

    block: SteadyBlock

    def __init__(
        self, extractor: nn.Module, block: SteadyBlock, width: int, classes: int, weight: float, norm: Norm
    ) -> None:
        super().__init__(extractor, block, width, classes)
        one_of("norm", norm, get_args(Norm))
        self.weight, self.norm = not_negative("weight", weight), norm

    def forward_with_auxiliary(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the weighted steady-state term, to be added to the loss."""
        if not self.weight:
            logits = self(x)
            return logits, logits.new_zeros(())
        end, movement = self.block(self.extractor(x), steady=True)
        size = movement.mean() if self.norm == "mean" else movement.flatten(1).norm(dim=1).mean()
        return self.classify(end), self.weight * size


@model("odenet-cnn")
def odenet_cnn(
    *, classes: int = 10, channels: int = 1, width: int = 64, extractor: str = "published", denoise: bool = False
) -> nn.Module:
    """The CNN that an ODENet is compared with: a residual block where the ODE is (Yan et al., ICLR 2020).

    Args:
        classes: number of classes.
        channels: channels of the images.
        width: channels of all feature maps, even; 64 as published, 16 is quick on a CPU.
        extractor: see `odenet`.
        denoise: see `odenet`.
    """
    features, block = feature_extractor(extractor, channels, width, denoise), Residual(Dynamics(width, timed=False))
    return BlockNet(features, block, width, whole("classes", classes, 2))


@model("odenet")
def odenet(
    *,
    classes: int = 10,
    channels: int = 1,
    width: int = 64,
    extractor: str = "published",
    denoise: bool = False,
    solver: str = "euler",
    step: float = 0.1,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    adjoint: bool = False,
    time: float = 1.0,
) -> nn.Module:
    """ODENet: an ODE block over t from 0 to ``time`` between convolutions and a linear layer (Yan et al., ICLR 2020).

    Defaults are those published for 28x28 grey images, 142,410 parameters. Initial weights are PyTorch's.

    Args:
        classes: number of classes.
        channels: channels of the images.
        width: channels of all feature maps, even; 64 as published, 16 is quick on a CPU.
        extractor: convolutions before the block. "published" for 28x28 images leaves a state of 13x13. The paper's for
            larger images are not known; our own: "small" (the first convolution padded) leaves 4x4 of 8x8 images,
            "deep" (one more convolution of stride 2) leaves 7x7 of 32x32 and 6x6 of 28x28.
        denoise: a feature denoising block (Xie et al., CVPR 2019) at the end of the extractor; the paper combines the
            two, the place is our choice.
        solver: "euler" as published, or another of `buttress.models.blocks.ode.integrate`, adaptive ones included.
        step: length of its steps.
        rtol: relative tolerance of adaptive solvers.
        atol: absolute one.
        adjoint: gradients by the adjoint equation; attack the network with False.
        time: where the block ends, 1 as published.
    """
    features = feature_extractor(extractor, channels, width, denoise)
    how: dict[str, Any] = {"solver": solver, "step": step, "rtol": rtol, "atol": atol, "adjoint": adjoint}
    block = ODEBlock(Dynamics(width, timed=True), t1=positive("time", time), **how)
    return ODENet(features, block, width, whole("classes", classes, 2))


@model("tisode")
def tisode(
    *,
    classes: int = 10,
    channels: int = 1,
    width: int = 64,
    extractor: str = "published",
    denoise: bool = False,
    solver: str = "euler",
    step: float = 0.05,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    adjoint: bool = False,
    window: str = "release",
    weight: float = 0.01,
    norm: Norm = "mean",
) -> nn.Module:
    """TisODE: a time-invariant ODE trained to be steady after its end (Yan et al., ICLR 2020).

    The loss gets ``weight`` times the size of S, the integral of |f| over a window. 141,130 parameters as published.
    The published training leaves the term out before the fifth epoch: the defence ``auxiliary-from`` does that.

    Args:
        classes: number of classes.
        channels: channels of the images.
        width: channels of all feature maps, even.
        extractor: see `odenet`.
        denoise: see `odenet`.
        solver: see `odenet`, this and the next four.
        step: length of its steps.
        rtol: relative tolerance.
        atol: absolute one.
        adjoint: gradients by the adjoint equation; the steady-state term always takes them through the steps.
        window: "paper", from T to 2 T, or "release", from 0.9 T to 1.5 T, as the published code has it.
        weight: of the term.
        norm: "mean" over all elements of S, as in the published code; or "l2", the Euclidean norm of each input's S,
            our reading of the paper's formula.
    """
    how: dict[str, Any] = {"solver": solver, "step": step, "rtol": rtol, "atol": atol, "adjoint": adjoint}
    features = feature_extractor(extractor, channels, width, denoise)
    block = SteadyBlock(Dynamics(width, timed=False), WINDOWS[one_of("window", window, WINDOWS)], **how)
    return TisODE(features, block, width, whole("classes", classes, 2), weight, norm)
