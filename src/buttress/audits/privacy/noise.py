"""The noise of a batch's gradient: how far its coordinates lie from those of the gradient over all training inputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from buttress.layers.example_gradients import batch_gradient
from buttress.random import generator
from buttress.tasks import Task

_BINS = 61  # of the histogram


def gradient_noise(
    model: nn.Module, x: Tensor, y: Tensor, task: Task, *, batch: int, batches: int, coordinates: int, seed: int
) -> Tensor:
    """Coordinates of (batch gradient - full gradient), of random batches at the same weights, in eval mode.

    As in the code of arXiv 2012.13573: 500 batches of 128, each at 20,000 random coordinates, by default there.

    Args:
        model: the network.
        x: (N, ...) inputs, of which the full gradient is; adversarial ones where training was.
        y: the truth of each.
        task: whose training loss it is.
        batch: inputs of one.
        batches: how many.
        coordinates: of each at most.
        seed: of batches and coordinates.

    Returns:
        (batches * coordinates,) float64.
    """
    count, draws = len(x), generator(seed, "gradient noise")
    full, inputs = torch.zeros(1, dtype=torch.float64, device=x.device), 0
    for part, truth in zip(torch.split(x, batch), torch.split(y, batch), strict=True):
        inputs += len(part)
        full = full + (batch_gradient(model, part, truth, task, seed) - full) * (len(part) / inputs)
    found = []
    for _ in range(batches):
        rows = torch.randperm(count, generator=draws)[:batch].to(x.device)
        places = torch.randperm(len(full), generator=draws)[:coordinates].to(x.device)
        found.append((batch_gradient(model, x[rows], y[rows], task, seed) - full)[places].cpu())
    return torch.cat(found)


def laplace_fit(values: Tensor) -> dict[str, Any]:
    """How well values fit a Laplace distribution about 0, and how well a normal one.

    Args:
        values: (K,) of the noise.

    Returns:
        The ``scale`` b = mean |u| and the standard ``deviation``, each the most likely one of its distribution; the
        Kolmogorov-Smirnov distances ``laplace`` and ``gaussian`` from 0 (fits) to 1, and ``likelihood``, the mean
        log-likelihood under the former less that under the latter, in nats. No distance where all values are 0.
    """
    values = values.double()
    scale, deviation = float(values.abs().mean()), float(values.square().mean().sqrt())
    if not scale:
        return {"scale": 0.0, "deviation": 0.0, "laplace": None, "gaussian": None, "likelihood": None}
    ordered = values.sort().values
    tail = (-ordered.abs() / scale).exp() / 2
    laplace = torch.where(ordered < 0, tail, 1 - tail)
    gaussian = torch.special.ndtr(ordered / deviation)
    likelihood = -math.log(2 * scale) - 1 + math.log(2 * math.pi * deviation**2) / 2 + 0.5
    distances = {"laplace": _distance(laplace), "gaussian": _distance(gaussian)}
    return {"scale": scale, "deviation": deviation, **distances, "likelihood": likelihood}


def histogram(values: Tensor) -> dict[str, list[float]]:
    """Middles of bins out to the 0.5 % of values on either side, and the ``density`` in each."""
    values = values.double()
    reach = float(values.abs().kthvalue(max(1, round(0.99 * len(values)))).values) or 1.0
    counts = torch.histc(values, _BINS, -reach, reach)
    width = 2 * reach / _BINS
    middles = [-reach + (k + 0.5) * width for k in range(_BINS)]
    return {"middles": middles, "density": (counts / (len(values) * width)).tolist()}


def _distance(levels: Tensor) -> float:
    """Between the distribution whose function takes these levels at the ordered values, and that of the values."""
    steps = torch.arange(len(levels) + 1, dtype=torch.float64) / len(levels)
    return float(torch.maximum((levels - steps[:-1]).abs(), (levels - steps[1:]).abs()).amax())
