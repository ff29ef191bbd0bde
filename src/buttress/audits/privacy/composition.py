"""From gradients and their noise to an (eps, delta) of differential privacy, and from that to bounds on the gap."""

from __future__ import annotations

import math

ASSUMPTIONS = (
    "the noise of each step's gradient is taken for Laplace noise, of one scale for every coordinate and step and "
    "independent of the data, which nobody has shown; the fit can only make it doubtful, since coordinates of several "
    "scales look like Laplace noise when they are put together, whatever each is",
    "the scale and the longest gradient are those at the end of training, at the inputs looked at; elsewhere "
    "gradients may be longer and noise smaller",
    "sensitivity is taken in l2 as in the paper; a strict Laplace mechanism needs l1 sensitivity, larger by up to the "
    "square root of the number of parameters",
    "steps are counted as releasing nothing but their noisy gradients",
)


def step_epsilon(longest: float, count: int, scale: float) -> float:
    """The eps of one step, 2 L / (N b), by the sensitivity 2 L / N of the mean gradient; infinite without noise.

    Args:
        longest: gradient norm of an example, L.
        count: training inputs, N.
        scale: of the Laplace noise, b.
    """
    return 2 * longest / (count * scale) if scale > 0 else math.inf


def composed_epsilon(eps: float, steps: int, delta: float) -> float:
    """The eps of so many steps of ``eps`` each, by the advanced composition of arXiv 2012.13573.

    T eps (e^eps - 1) / (e^eps + 1) + sqrt(2 log(1 / delta) T eps^2), whose delta is their delta' / N.
    """
    return steps * eps * math.tanh(eps / 2) + math.sqrt(2 * math.log(1 / delta) * steps) * eps


def average_gap(eps: float, delta: float, largest: float = 1.0) -> float:
    """How much the mean loss over draws of the data may fall in training: M (1 - e^-eps + e^-eps delta).

    The usual stability of a differentially private method.

    Args:
        eps: of the whole training.
        delta: likewise.
        largest: the loss is from 0 to M.
    """
    return largest * (1 - math.exp(-eps) * (1 - delta))


def likely_gap(eps: float, delta: float, largest: float = 1.0) -> dict[str, float]:
    """A gap that is exceeded rarely, and how rarely, by He, Wang and Tao (arXiv 2007.09371).

    Constants are as recalled, not read: gap below 9 M eps with probability above 1 - (e^-eps delta / eps) log(2 / eps)
    if there are N >= (2 / eps^2) log(16 / (e^-eps delta)) inputs.

    Args:
        eps: of the whole training; above 0.
        delta: likewise.
        largest: the loss is from 0 to M.

    Returns:
        ``gap``, ``probability`` (0 where the formula is below) and ``inputs``, how many it needs.
    """
    if math.isinf(eps):
        return {"gap": math.inf, "probability": 0.0, "inputs": 0.0}
    probability = 1 - math.exp(-eps) * delta / eps * math.log(2 / eps)
    inputs = 2 / eps**2 * (math.log(16 / delta) + eps)
    return {"gap": 9 * largest * eps, "probability": min(1.0, max(0.0, probability)), "inputs": inputs}
