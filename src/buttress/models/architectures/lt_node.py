"""Latent time neural ODEs: the end time has a Gamma posterior, one for all inputs or one for each."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.blocks.gamma import Gamma
from buttress.models.blocks.latent_time import EndTimes, LatentTimeNet, Sampling
from buttress.models.blocks.ode import ODEBlock
from buttress.models.blocks.ode_network import Dynamics, feature_extractor
from buttress.registry import model
from buttress.validation import not_negative, positive, whole

_LEAST = 0.01  # of shape and rate


class LTNode(LatentTimeNet):
    """One posterior for the whole data set: two numbers that are learned with the weights.

    Args:
        extractor: as of `LatentTimeNet`, this and the next three.
        block: the equation.
        width: channels.
        classes: number of classes.
        end_times: see there; its ``kl_weight`` is already divided by the number of training inputs.
        initial: shape and rate at the start.
        speed: how many times as fast as the weights shape and rate move under an optimiser, such as Adam, whose steps
            do not grow with the gradient: softplus is taken of ``speed`` times the parameter, plus a constant.
    """

    start: Tensor

    def __init__(
        self,
        extractor: nn.Module,
        block: ODEBlock,
        width: int,
        classes: int,
        end_times: EndTimes,
        initial: tuple[float, float],
        speed: float,
    ) -> None:
        super().__init__(extractor, block, width, classes, end_times)
        self.speed = positive("speed", speed)
        self.register_buffer("start", _before_softplus(initial), persistent=False)
        self.moved = nn.Parameter(torch.zeros(2))

    def posterior(self, z: Tensor) -> Gamma:
        """The same for every input."""
        return _gamma(self.start + self.speed * self.moved[None])


class ALTNode(LatentTimeNet):
    """A posterior for each input, which a small network infers from the start of the ODE.

    Args:
        extractor: as of `LatentTimeNet`, this and the next three.
        block: the equation.
        width: channels.
        classes: number of classes.
        end_times: see there.
        initial: shape and rate where the small network returns zeros, as it nearly does before training.
        hidden: its feature maps.
    """

    start: Tensor

    def __init__(
        self,
        extractor: nn.Module,
        block: ODEBlock,
        width: int,
        classes: int,
        end_times: EndTimes,
        initial: tuple[float, float],
        hidden: int,
    ) -> None:
        super().__init__(extractor, block, width, classes, end_times)
        self.register_buffer("start", _before_softplus(initial), persistent=False)
        conv = nn.Conv2d(width, whole("hidden", hidden, 1), 3, padding=1)
        # The last layer is linear; as a 1x1 convolution of the pooled maps it needs no reshaping.
        self.inference = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 2, 1), nn.Flatten())

    def posterior(self, z: Tensor) -> Gamma:
        """One for each input; gradients flow through it into the input."""
        return _gamma(self.start + self.inference(z))


def _before_softplus(initial: tuple[float, float]) -> Tensor:
    values = [positive(f"the initial {name}", v) for name, v in zip(("shape", "rate"), initial, strict=True)]
    if min(values) <= _LEAST:
        raise UserError(f"the initial shape and rate must exceed {_LEAST}; got {initial[0]:g} and {initial[1]:g}")
    inverse = [v - _LEAST + math.log(-math.expm1(_LEAST - v)) for v in values]
    return torch.tensor(inverse, dtype=torch.float64)


def _gamma(values: Tensor) -> Gamma:
    """From (N, 2) numbers of any size; in float64, and outside of autocast."""
    with torch.autocast(values.device.type, enabled=False):
        shape, rate = (F.softplus(values.double()) + _LEAST).unbind(-1)
    return Gamma(shape, rate)


def _parts(
    classes: int, channels: int, width: int, extractor: str, denoise: bool, solver: str, step: float, **how: Any
) -> tuple[nn.Module, ODEBlock, int, int]:
    features = feature_extractor(extractor, channels, width, denoise)
    return (
        features,
        ODEBlock(Dynamics(width, timed=True), solver=solver, step=step, **how),
        width,
        whole("classes", classes, 2),
    )


@model("lt-node")
def lt_node(
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
    examples: int = 60_000,
    kl_weight: float = 1.0,
    shape: float = 2.0,
    rate: float = 2.0,
    prior_shape: float = 2.0,
    prior_rate: float = 2.0,
    speed: float = 10.0,
    samples: int = 10,
    train_samples: int = 2,
    sampling: Sampling = "quadrature",
    shortest: float = 0.05,
    longest: float = 4.0,
) -> nn.Module:
    """LT-NODE: an ODENet whose end time has one Gamma posterior (Anumasa and Srijith, AAAI 2022, arXiv 2112.12728).

    A reconstruction. From the paper's abstract: the end time is latent, its Gamma posterior and the weights are
    inferred variationally, the answers at sampled end times are averaged, one forward solve serves all of them.
    Everything else is our choice: the network is that of `odenet` and the numbers are the defaults here. The loss is
    cross-entropy, in the mean over end times, plus ``kl_weight`` / ``examples`` times the divergence from the prior.
    The defence ``auxiliary-from`` leaves the divergence out at first; the loss is then the cross-entropy of the mean
    log-probabilities.

    Predictions are deterministic by default, so that users get the same answer twice; attack random ones
    with ``eot``. Each of them is then made with one set of end times for the whole batch.

    Args:
        classes: number of classes.
        channels: channels of the images.
        width: channels of all feature maps, even.
        extractor: see `buttress.models.architectures.odenet.odenet`, this and the next six.
        denoise: feature denoising.
        solver: of the equation.
        step: of the solver, and of the grid from which states between are reached.
        rtol: relative tolerance of adaptive solvers.
        atol: absolute one.
        adjoint: gradients by the adjoint equation.
        examples: number of training inputs, by which the divergence is divided; jobs fill in that of their data.
        kl_weight: of the divergence; 1 is the evidence lower bound, 0 leaves it out.
        shape: of the posterior at first.
        rate: of the posterior at first; the mean end time is shape / rate.
        prior_shape: of the prior.
        prior_rate: of the prior.
        speed: how many times as fast as the weights the posterior moves under Adam.
        samples: end times that a prediction averages over.
        train_samples: end times drawn in a step of training.
        sampling: end times of predictions in eval mode: "quadrature", quantiles of equal weight; "random"; or "mean",
            the posterior's mean alone, which is a plain ODENet.
        shortest: end times are set to at least this (and then have no gradient).
        longest: and to at most this.
    """
    kl_weight = not_negative("kl_weight", kl_weight)
    ends = EndTimes(
        (prior_shape, prior_rate),
        kl_weight / whole("examples", examples, 1),
        *(samples, train_samples, sampling, shortest, longest),
    )
    parts = _parts(classes, channels, width, extractor, denoise, solver, step, rtol=rtol, atol=atol, adjoint=adjoint)
    return LTNode(*parts, ends, (shape, rate), speed)


@model("alt-node")
def alt_node(
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
    kl_weight: float = 1.0,
    shape: float = 2.0,
    rate: float = 2.0,
    prior_shape: float = 2.0,
    prior_rate: float = 2.0,
    hidden: int = 8,
    samples: int = 10,
    train_samples: int = 2,
    sampling: Sampling = "quadrature",
    shortest: float = 0.05,
    longest: float = 4.0,
) -> nn.Module:
    """ALT-NODE: an LT-NODE with a posterior for each input (Anumasa and Srijith, AAAI 2022, arXiv 2112.12728).

    A reconstruction in the same way; that an inference network gives the posterior is from the abstract, its form is
    ours: a 3x3 convolution of the ODE's start, ReLU, the mean over positions, and a linear layer. The loss has the
    divergence of every input, undivided, which soon outweighs a small cross-entropy: ``kl_weight`` matters here.

    Args:
        classes: see `lt_node`, and so all that are not explained here.
        channels: channels of the images.
        width: channels of all feature maps, even.
        extractor: convolutions before the equation.
        denoise: feature denoising.
        solver: of the equation.
        step: of the solver and the grid.
        rtol: relative tolerance of adaptive solvers.
        atol: absolute one.
        adjoint: gradients by the adjoint equation.
        kl_weight: of each input's divergence; 1 is the evidence lower bound, 0 leaves it out.
        shape: of the posteriors at first, about.
        rate: likewise.
        prior_shape: of the prior.
        prior_rate: of the prior.
        hidden: feature maps of the inference network.
        samples: end times that a prediction averages over.
        train_samples: end times drawn in a step of training.
        sampling: "quadrature", "random" or "mean".
        shortest: least end time.
        longest: greatest end time.
    """
    prior = (prior_shape, prior_rate)
    ends = EndTimes(prior, kl_weight, samples, train_samples, sampling, shortest, longest)
    parts = _parts(classes, channels, width, extractor, denoise, solver, step, rtol=rtol, atol=atol, adjoint=adjoint)
    return ALTNode(*parts, ends, (shape, rate), hidden)
