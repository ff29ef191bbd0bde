"""The linear problems that go with a standalone neural ODE: its adjoint and its sensitivity, on the Euler grid.

Jaroudi et al., arXiv 2205.13933, and arXiv 2202.05766 for the mathematics. With x(k) the state before step k, v(k) =
W(k) x(k) + b(k) and h the length of a step, all follow x(k + 1) = x(k) + h sigma(v(k)) without further approximation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.models.architectures.snode import SNODE


@dataclass(frozen=True)
class Trajectory:
    """A solved direct problem for a batch of B inputs.

    Attributes:
        states: (N + 1, B, d) the states, the first at time 0.
        slopes: (N, B, d) sigma' at each step.
    """

    states: Tensor
    slopes: Tensor

    @property
    def end(self) -> Tensor:
        """(B, d) the states at time T."""
        return self.states[-1]


def direct(net: SNODE, start: Tensor) -> Trajectory:
    """Solve dx/dt = sigma(W x + b) from ``start``, (B, d); without a graph."""
    states, inner = [start.detach()], []
    with torch.no_grad():
        for weight, bias in zip(net.weight, net.bias, strict=True):
            inner.append(torch.nn.functional.linear(states[-1], weight, bias))
            states.append(states[-1] + net.h * net.activation(inner[-1]))
    with torch.enable_grad():  # sigma is elementwise: the gradient of its sum is its derivative
        leaf = torch.stack(inner).requires_grad_()
        (slopes,) = torch.autograd.grad(net.activation(leaf).sum(), leaf)
    return Trajectory(torch.stack(states), slopes)


@dataclass(frozen=True)
class Gradients:
    """Gradients in L2([0, T]) of a functional of the end state.

    Their sum over the steps, times h, with a change of the weights is the functional's change; so the gradients of the
    network's parameters are h times these.

    Attributes:
        weight: (N, d, d).
        bias: (N, d).
        start: (B, d) the gradient with respect to the state at time 0.
    """

    weight: Tensor
    bias: Tensor
    start: Tensor


def adjoint(net: SNODE, path: Trajectory, terminal: Tensor) -> Gradients:
    """Solve -dlambda/dt = W^T (sigma' lambda) backwards from lambda(T) = ``terminal``, and read the gradients off.

    Args:
        net: the network.
        path: its direct problem.
        terminal: (B, d) the functional's gradient with respect to the end states.
    """
    with torch.no_grad():
        costate, pulled = terminal, []
        for weight, slope in zip(net.weight.flip(0), path.slopes.flip(0), strict=True):
            pulled.append(slope * costate)
            costate = costate + net.h * pulled[-1] @ weight
        rows = torch.stack(pulled[::-1])
        return Gradients(rows.transpose(1, 2) @ path.states[:-1], rows.sum(1), costate)


def weight_sensitivity(net: SNODE, path: Trajectory, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, d) xi(T) of dxi/dt = sigma' (W xi + dW x + db), xi(0) = 0: the end state's derivative along (dW, db).

    Args:
        net: the network.
        path: its direct problem.
        weight: (N, d, d), dW.
        bias: (N, d), db.
    """
    with torch.no_grad():
        pushed = torch.baddbmm(bias[:, None], path.states[:-1], weight.transpose(1, 2))
        change = torch.zeros_like(path.end)
        for here, slope, push in zip(net.weight, path.slopes, pushed, strict=True):
            change = change + net.h * slope * (change @ here.T + push)
        return change


def input_sensitivity(net: SNODE, path: Trajectory) -> Tensor:
    """(B, d, d) the Jacobian of x(T) with respect to x(0), from dxi/dt = sigma' (W xi) with xi(0) the identity."""
    with torch.no_grad():
        count, size = path.end.shape
        change = torch.eye(size, dtype=path.end.dtype, device=path.end.device).expand(count, size, size)
        for here, slope in zip(net.weight, path.slopes, strict=True):
            change = change + net.h * slope[..., None] * (here @ change)
        return change


def sobolev_matrix(steps: int, time: float) -> Tensor:
    """(N, N) float64, what takes an L2 gradient u on N equal steps of [0, T] to the Sobolev gradient v.

    v solves v - v'' = u with v'(0) = v'(T) = 0, so that <v, w> + <v', w'> = <u, w> for all w. In closed form

        v(t) = (cosh(T - t) int_0^t cosh(s) u(s) ds + cosh(t) int_t^T cosh(T - s) u(s) ds) / sinh(T).

    For u constant within each step the integrals are exact, and v is read in the middle of each. The matrix is
    symmetric and positive definite, so the negative of v is a direction of descent.
    """
    h = time / steps
    t = (torch.arange(steps, dtype=torch.float64) + 0.5) * h
    low, high = torch.minimum(t[:, None], t), torch.maximum(t[:, None], t)
    kernel = low.cosh() * (time - high).cosh() * (2 * math.sinh(h / 2))
    before = (time - t).cosh() * (t.sinh() - (t - h / 2).sinh())
    after = t.cosh() * ((time - t).sinh() - (time - t - h / 2).sinh())
    kernel.diagonal().copy_(before + after)
    return kernel / math.sinh(time)
