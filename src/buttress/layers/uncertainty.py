"""Uncertain inputs: the outputs' covariance by the Jacobian, the errors to expect, and both by sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.errors import NoGradientError
from buttress.random import Random

TensorFunction = Callable[[Tensor], Tensor]


def jacobian(function: TensorFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) outputs of a function at N points, and (N, C, D) their Jacobians, by one reverse pass for each output.

    Raises:
        NoGradientError: where the output does not depend on the input by differentiable operations.
    """
    with torch.enable_grad():
        start = x.detach().clone().requires_grad_()
        out = function(start)
        if not out.requires_grad:
            raise NoGradientError("the model's output has no gradient, from which its uncertainty follows: sample it")
        rows = [
            torch.autograd.grad(out[:, k].sum(), start, retain_graph=True, materialize_grads=True)[0].flatten(1)
            for k in range(out.shape[1])
        ]
    return out.detach(), torch.stack(rows, dim=1)


def propagated_covariance(matrix: Tensor, variance: Tensor) -> Tensor:
    """(N, C, C) J Sigma J^T in float64, of Jacobians (N, C, D) and independent inputs of variance (D,)."""
    wide = matrix.double()
    return wide @ (variance.double()[:, None] * wide.transpose(1, 2))


def error_probabilities(logits: Tensor, covariance: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the probability that normally distributed logits do not put the class ``y`` first.

    The lead of ``y`` over each other class is normal, so the probability that it is lost is known. All leads
    together are lost at least as often as the one that is lost most often, and at most as often as the sum says.

    Args:
        logits: (N, C) means.
        covariance: (N, C, C).
        y: (N,) classes.

    Returns:
        (N,) float64: from below, and from above; they are equal where there are two classes.
    """
    mean, own = logits.double(), y[:, None]
    spread = covariance.diagonal(dim1=1, dim2=2)
    shared = covariance.gather(1, own[:, :, None].expand(-1, 1, covariance.shape[2])).squeeze(1)
    lead = mean.gather(1, own) - mean
    deviation = (spread.gather(1, own) + spread - 2 * shared).clamp(min=0).sqrt()
    certain = deviation == 0
    lost = torch.special.ndtr(-lead / torch.where(certain, 1, deviation))
    lost = torch.where(certain, (lead <= 0).double(), lost).scatter(1, own, 0.0)
    return lost.amax(1), lost.sum(1).clamp(max=1)


@dataclass(frozen=True)
class SampledOutputs:
    """Statistics of the outputs for N noisy inputs.

    Attributes:
        shift: (N, C) mean difference to the output without noise, float64.
        covariance: (N, C, C) of the outputs, float64.
        wrong: (N,) share of the draws in which another class came first.
    """

    shift: Tensor
    covariance: Tensor
    wrong: Tensor


def sample_outputs(
    function: TensorFunction, x: Tensor, y: Tensor, std: Tensor, random: Random, draws: int
) -> SampledOutputs:
    """Run a function on inputs with normal noise, ``draws`` times, at least twice.

    Args:
        function: (N, ...) -> (N, C).
        x: (N, ...) inputs.
        y: (N,) classes.
        std: standard deviation of the noise, of the shape of one input, or one number.
        random: the draws, one stream per input.
        draws: how often.
    """
    with torch.no_grad():
        clean = function(x).double()
        total, squares = torch.zeros_like(clean), torch.zeros(*clean.shape, clean.shape[1]).to(clean)
        wrong = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(draws):
            output = function(x + std * random.normal(x.shape[1:], x.dtype))
            wrong += output.argmax(1) != y
            change = output.double() - clean
            total += change
            squares += change[:, :, None] * change[:, None]
    mean = total / draws
    covariance = (squares - draws * mean[:, :, None] * mean[:, None]) / (draws - 1)
    return SampledOutputs(mean, covariance, wrong / draws)


def relative_error(covariance: Tensor, reference: Tensor) -> Tensor:
    """(N,) Frobenius norm of the difference of two covariances over that of the second; NaN where that is 0."""
    size = torch.linalg.matrix_norm(reference)
    return torch.where(size > 0, torch.linalg.matrix_norm(covariance - reference) / size, torch.nan)


def sampling_error(covariance: Tensor, draws: int) -> Tensor:
    """(N,) what `relative_error` is to be expected of a covariance of so many normal draws: root mean square."""
    trace = covariance.diagonal(dim1=1, dim2=2).sum(1)
    size = covariance.square().sum((1, 2))
    return torch.where(size > 0, ((1 + trace.square() / size) / (draws - 1)).sqrt(), torch.nan)
