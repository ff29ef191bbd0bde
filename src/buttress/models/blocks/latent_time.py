"""Neural ODEs whose end time is a random variable: one solve gives the answers at many end times."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.blocks.gamma import Gamma
from buttress.models.blocks.ode import FIXED, ODEBlock
from buttress.models.blocks.ode_network import ODENet
from buttress.validation import not_negative, one_of, positive, whole

Sampling = Literal["quadrature", "random", "mean"]
Average = Literal["probabilities", "logits"]
_SLACK = 1e-9  # share of a step by which the last end time may exceed the grid


@dataclass(frozen=True)
class EndTimes:
    """How end times are inferred and drawn.

    Attributes:
        prior: shape and rate of the prior.
        kl_weight: of the divergence from the prior in the loss, for each input.
        samples: end times that a prediction averages over.
        train_samples: end times drawn for a step of training.
        sampling: how a prediction chooses them in eval mode.
        shortest: end times below are set to this.
        longest: end times above are set to this.
    """

    prior: tuple[float, float] = (2.0, 2.0)
    kl_weight: float = 1.0
    samples: int = 10
    train_samples: int = 2
    sampling: Sampling = "quadrature"
    shortest: float = 0.05
    longest: float = 4.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        positive("prior_shape", self.prior[0])
        positive("prior_rate", self.prior[1])
        not_negative("kl_weight", self.kl_weight)
        whole("samples", self.samples, 1)
        whole("train_samples", self.train_samples, 1)
        one_of("sampling", self.sampling, get_args(Sampling))
        if not positive("shortest", self.shortest) < positive("longest", self.longest):
            raise UserError(f"shortest must be below longest; got {self.shortest!r} and {self.longest!r}")

    def times(self, posterior: Gamma, sampling: Sampling, count: int) -> Tensor:
        """(S, ...) end times, with gradients for the posterior's parameters where they are not truncated."""
        if sampling == "mean":
            times = posterior.mean[None]
        else:
            times = posterior.draw(count) if sampling == "random" else posterior.quantiles(count)
        return times.clamp(self.shortest, self.longest)


class LatentTimeNet(ODENet):
    """Predicts by the mean probability over end times T of its ODE, drawn from a Gamma posterior q(T) or q(T | x).

    What it returns are log-probabilities: the logarithm of that mean. Draws come from torch's global random state.

    Args:
        extractor: inputs -> the start of the ODE, (N, width, H, W).
        block: the equation and its solver; its end is not used.
        width: channels.
        classes: number of classes.
        end_times: how T is inferred and drawn.
    """

    def __init__(self, extractor: nn.Module, block: ODEBlock, width: int, classes: int, end_times: EndTimes) -> None:
        super().__init__(extractor, block, width, classes)
        self.end_times = end_times

    @abstractmethod
    def posterior(self, z: Tensor) -> Gamma:
        """Of the end time, given the ODE's start ``z`` (N, ...): one for all inputs (1,), or one for each (N,)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) the logarithm of the mean probability; in train mode over as many draws as training makes."""
        return self.answer(x)

    def answer(
        self,
        x: Tensor,
        *,
        block: ODEBlock | None = None,
        sampling: Sampling | None = None,
        samples: int | None = None,
        average: Average = "probabilities",
    ) -> Tensor:
        """The prediction, by default as in ``forward``.

        Args:
            x: inputs.
            block: another solver of the equation.
            sampling: see `EndTimes`; "mean" takes the posterior's mean as the only end time.
            samples: end times.
            average: of "probabilities", or of the log-probabilities ("logits").
        """
        z = self.extractor(x)
        logs = self.log_probabilities(z, self._times(self.posterior(z), sampling, samples), block)
        if average == "logits":
            return logs.mean(0)
        return logs.logsumexp(0) - math.log(len(logs))

    def log_probabilities(self, z: Tensor, times: Tensor, block: ODEBlock | None = None) -> Tensor:
        """(S, N, classes) of the states at ``times`` (S, 1) or (S, N) when the ODE starts in ``z`` (N, ...)."""
        states = states_at(block or self.block, z, times)
        logits = self.classify(states.flatten(0, 1))
        return F.log_softmax(logits.view(*states.shape[:2], -1), -1)

    def forward_with_auxiliary(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The objective's logits, and what makes it the negative evidence lower bound.

        Training takes the mean of the log-likelihood over end times, prediction the logarithm of the mean likelihood.
        The logits here are therefore the means of log-probabilities. Their cross-entropy differs from the mean
        cross-entropy by the logarithm of the sum of their exponentials, whatever the labels are (mixed ones included),
        and the auxiliary takes that away again, besides adding the weighted divergence. So cross-entropy of the logits
        plus the auxiliary is the mean over inputs of E_q[-log p(y | x, T)] + weight KL.
        """
        z = self.extractor(x)
        posterior = self.posterior(z)
        mean = self.log_probabilities(z, self._times(posterior)).mean(0)
        divergence = posterior.kl(self.prior(posterior)).mean()
        return mean, self.end_times.kl_weight * divergence.to(mean) - mean.logsumexp(-1).mean()

    def prior(self, like: Gamma) -> Gamma:
        """p(T), where the posterior is."""
        shape, rate = (like.shape.new_tensor(value) for value in self.end_times.prior)
        return Gamma(shape, rate)

    def uncertainty(self, x: Tensor) -> dict[str, Tensor]:
        """How unsure the prediction is, input by input.

        Returns:
            (N,) each: ``entropy`` of the mean probabilities and ``mutual_information`` of class and end time, in nats;
            ``end_time_mean`` and ``end_time_std`` of the posterior, which is not truncated here.
        """
        z = self.extractor(x)
        posterior = self.posterior(z)
        logs = self.log_probabilities(z, self._times(posterior))
        total = entropy(logs.logsumexp(0) - math.log(len(logs)))
        moments = {"end_time_mean": posterior.mean, "end_time_std": posterior.std}
        return {
            "entropy": total,
            "mutual_information": (total - entropy(logs).mean(0)).clamp(min=0),
            **{name: value.expand(len(x)).to(total) for name, value in moments.items()},
        }

    def over_time(self, x: Tensor, times: Tensor) -> dict[str, Tensor]:
        """The same weights at fixed end times, and the posterior there.

        Args:
            x: inputs.
            times: (S,) above 0.

        Returns:
            ``log_probabilities`` (S, N, classes); ``density`` of the posterior (S, N); its ``mean`` (N,).
        """
        z = self.extractor(x)
        posterior, times = self.posterior(z), times.to(device=z.device, dtype=torch.float64)[:, None]
        logs = self.log_probabilities(z, times)
        density = posterior.density(times).expand(-1, len(x))
        return {"log_probabilities": logs, "density": density, "mean": posterior.mean.expand(len(x))}

    def attack_variants(self) -> dict[str, nn.Module]:
        """This network with another solver, end times chosen in another way, or log-probabilities in the mean."""
        variants: dict[str, nn.Module] = {
            name: _Answer(self, variant.block, None, "probabilities")
            for name, variant in super().attack_variants().items()
            if isinstance(variant.block, ODEBlock)
        }
        others: dict[str, Sampling] = {
            "quadrature": "quadrature",
            "random end times": "random",
            "mean end time": "mean",
        }
        for name, sampling in others.items():
            if sampling != self.end_times.sampling:
                variants[name] = _Answer(self, None, sampling, "probabilities")
        return {**variants, "mean logits": _Answer(self, None, None, "logits")}

    def _times(self, posterior: Gamma, sampling: Sampling | None = None, samples: int | None = None) -> Tensor:
        ends = self.end_times
        default: Sampling = "random" if self.training else ends.sampling
        count = ends.train_samples if self.training else ends.samples
        return ends.times(posterior, sampling or default, samples or count)


class _Answer(nn.Module):
    """A network's prediction made in another way; the weights are the network's own."""

    def __init__(
        self, network: LatentTimeNet, block: ODEBlock | None, sampling: Sampling | None, average: Average
    ) -> None:
        super().__init__()
        self.network, self.block, self.sampling, self.average = network, block, sampling, average

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) log-probabilities, or their mean."""
        return self.network.answer(x, block=self.block, sampling=self.sampling, average=self.average)


def states_at(block: ODEBlock, z: Tensor, times: Tensor) -> Tensor:
    """The states of one trajectory per input at many times, by one solve up to the latest of them.

    The solve goes along a grid of the block's step; from the grid point before each time a shortened step leads there.
    So a state depends neither on the other times nor on the rest of the batch, and is what a solve of its own would
    give. The shortened step of Euler's method lies on the line between two grid points and costs nothing; other fixed
    steps cost a step more per time, and adaptive solvers, which must meet the grid, get one of rk4. Its gradient
    for the time is the slope of the equation.

    Args:
        block: the equation, from time 0 on; ``step`` is the grid's in adaptive solvers, too.
        z: (N, ...) the states at time 0.
        times: (S, 1) or (S, N), 0 or above.

    Returns:
        (S, N, ...) the states; NaN at a time that is NaN, as where weights or inputs are no numbers.
    """
    times, step = times.expand(len(times), len(z)), block.step
    values = times.detach().nan_to_num(nan=0.0)
    count = max(1, math.ceil(float(values.max()) / step - _SLACK))
    states = block.states(z, [k * step for k in range(count + 1)])
    left = (values / step).floor().long().clamp(max=count - 1)
    rows = torch.arange(len(z), device=z.device)
    start = states[left, rows]
    late = (times - left * step).to(z.dtype).view(*times.shape, *[1] * (z.dim() - 1))
    if block.solver == "euler":
        return start + late * ((states[left + 1, rows] - start) / step)
    left_time = (left * step).to(z.dtype).view(late.shape)
    shortened = FIXED.get(block.solver, FIXED["rk4"])
    return shortened(block.func, left_time.flatten(0, 1), late.flatten(0, 1), start.flatten(0, 1)).view_as(start)


def entropy(logs: Tensor) -> Tensor:
    """(...) in nats, of log-probabilities (..., classes)."""
    return -(logs.exp() * logs).sum(-1)
