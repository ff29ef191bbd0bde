"""What nonlinear conjugate gradients for a standalone neural ODE are made of: energy, conjugacy and step length."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.models.architectures.snode import SNODE

Rule = Literal["fr", "pr", "fr-pr", "hs", "dy", "none"]
RULES = get_args(Rule)
Direction = tuple[Tensor, Tensor]  # (N, d, d) of W and (N, d) of b

_MOST = 100  # iterations of the root finder
_CLOSE = 1e-12  # its relative tolerance


@dataclass(frozen=True)
class Energy:
    """The cost E of a batch of B inputs, its gradient at the end states, and how it changes along a direction.

    E = mu1 / 2B sum ||x(T) - y||^2 + mu2 / B sum CE(z) + mu3 / 2B sum ||x(T) - T sigma(0)||^2
        + mu4 / 2 int ||W(t)||^2 + ||b(t)||^2 dt,

    with y the class's unit vector, 0 beyond the classes, and z the first coordinates of x(T).

    Args:
        mu1: weight of the distance to the target.
        mu2: of the cross-entropy.
        mu3: of the distance to the end of a network without weights, started at 0.
        mu4: of the size of the weights.
        low: the target's value at the other classes.
        high: at the true class.
    """

    mu1: float
    mu2: float
    mu3: float
    mu4: float
    low: float
    high: float

    def value(self, net: SNODE, end: Tensor, y: Tensor) -> Tensor:
        """E, a scalar in float64, for end states (B, d) and classes (B,)."""
        end, rest = end.double(), self._rest(net, end)
        missed = self.mu1 / 2 * (end - self._target(net, end, y)).square().sum()
        missed = missed + self.mu3 / 2 * (end - rest).square().sum()
        if self.mu2:
            missed = missed + self.mu2 * F.cross_entropy(end[:, : net.classes], y, reduction="sum")
        size = sum((p.double().square().sum() for p in (net.weight, net.bias)), start=end.new_zeros(()))
        return missed / len(end) + (self.mu4 / 2 * net.h) * size

    def terminal(self, net: SNODE, end: Tensor, y: Tensor) -> Tensor:
        """(B, d) the gradient of E with respect to the end states, float64."""
        end, rest = end.double(), self._rest(net, end)
        slope = self.mu1 * (end - self._target(net, end, y)) + self.mu3 * (end - rest)
        if self.mu2:
            z = end[:, : net.classes]
            slope[:, : net.classes] += self.mu2 * (z.softmax(1) - F.one_hot(y, net.classes))
        return slope / len(end)

    def along(self, net: SNODE, end: Tensor, y: Tensor, xi: Tensor, direction: Direction) -> Line:
        """E's derivative along a direction of the weights, the end states taken as linear in the step.

        Args:
            net: the network.
            end: (B, d) end states.
            y: (B,) classes.
            xi: (B, d) the end states' derivative along the direction.
            direction: of W and b.
        """
        end, xi = end.double(), xi.double()
        start = self.mu1 * (xi * (end - self._target(net, end, y))).sum()
        start = start + self.mu3 * (xi * (end - self._rest(net, end))).sum()
        start = start - self.mu2 * xi.gather(1, y[:, None]).sum()
        slope = (self.mu1 + self.mu3) * xi.square().sum()
        weights = (net.weight.detach(), net.bias.detach())
        z, toward = end[:, : net.classes], xi[:, : net.classes]
        return Line(
            float(start) / len(end) + self.mu4 * net.h * dot(weights, direction),
            float(slope) / len(end) + self.mu4 * net.h * dot(direction, direction),
            self.mu2 / len(end),
            z,
            toward,
        )

    def _target(self, net: SNODE, end: Tensor, y: Tensor) -> Tensor:
        target = torch.zeros_like(end)
        target[:, : net.classes] = self.low
        return target.scatter_(1, y[:, None], self.high)

    def _rest(self, net: SNODE, end: Tensor) -> Tensor:
        rest: Tensor = net.time * net.activation(end.new_zeros(()))
        return rest


@dataclass(frozen=True)
class Line:
    """phi, the derivative of E along a line: phi(s) = start + slope s + share sum <softmax(z + s xi), xi>.

    It never falls, as E is convex in the output.

    Attributes:
        start: the constant.
        slope: of the linear part.
        share: weight of the cross-entropy's part, for each input.
        z: (B, K) the logits.
        xi: (B, K) their derivative along the line.
    """

    start: float
    slope: float
    share: float
    z: Tensor
    xi: Tensor

    def __call__(self, step: float) -> tuple[float, float]:
        """The value and its derivative."""
        value, rate = self.start + self.slope * step, self.slope
        if self.share:
            p = (self.z + step * self.xi).softmax(1)
            mean = (p * self.xi).sum(1)
            value += self.share * float(mean.sum())
            rate += self.share * float(((p * self.xi.square()).sum(1) - mean.square()).sum())
        return value, rate

    def best(self, longest: float) -> float:
        """The step in [0, longest] at which E along the line is smallest: exact where there is no cross-entropy."""
        here, _ = self(0.0)
        if not here < 0:
            return 0.0
        first = min(-here / self.slope if self.slope > 0 else longest, longest)
        return first if not self.share else root(self, first, longest)


def root(phi: Callable[[float], tuple[float, float]], first: float, longest: float) -> float:
    """Where a function that never falls and starts below 0 becomes 0; ``longest`` where that is further.

    Newton's steps, halving instead where they leave the interval that is known to hold the root.

    Args:
        phi: gives value and derivative.
        first: where to look first.
        longest: a finite bound.
    """
    low, high, here = 0.0, longest, first
    if phi(longest)[0] <= 0:
        return longest
    for _ in range(_MOST):
        value, rate = phi(here)
        low, high = (here, high) if value < 0 else (low, here)
        then = here - value / rate if rate > 0 else math.inf
        then = then if low < then < high else (low + high) / 2
        if abs(then - here) <= _CLOSE * then:
            return then
        here = then
    return here


def dot(one: Direction, other: Direction) -> float:
    """The inner product, in float64."""
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True))


def conjugacy(rule: Rule, slope: Direction, before: Direction, direction: Direction) -> float:
    """How much of the last direction the next one keeps: gamma in D = -U + gamma D.

    Args:
        rule: "fr" Fletcher and Reeves; "pr" Polak and Ribiere, at least 0; "fr-pr" the same within the bounds of "fr";
            "hs" Hestenes and Stiefel; "dy" Dai and Yuan; "none", steepest descent.
        slope: U, the gradient.
        before: U of the last iteration.
        direction: D of the last iteration.
    """
    size, last = dot(slope, slope), dot(before, before)
    turned = size - dot(slope, before)
    curved = dot(direction, slope) - dot(direction, before)
    upper: dict[str, tuple[float, float]] = {
        "fr": (size, last),
        "pr": (max(0.0, turned), last),
        "fr-pr": (min(max(turned, -size), size), last),
        "hs": (turned, curved),
        "dy": (size, curved),
        "none": (0.0, 1.0),
    }
    above, below = upper[rule]
    return above / below if below else 0.0
