"""Support vector machines with attention, one for each pair of classes, trained side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from buttress.random import generator
from buttress.validation import not_negative, one_of, whole

Attention = Literal["pairwise", "none"]


@dataclass(frozen=True, kw_only=True)
class SVMSettings:
    """How a machine is trained.

    Args:
        c: weight of the hinge loss against the mean square of w.
        lr: learning rate of plain SGD.
        epochs: over the vectors, each of which is a step.
        attention: "pairwise" learns one for the pair; "none" is 1 everywhere, a linear machine.

    Raises:
        UserError: for numbers that are negative or not finite, and an unknown attention.
    """

    c: float = 0.01
    lr: float = 0.01
    epochs: int = 10
    attention: Attention = "pairwise"

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        not_negative("svm_c", self.c)
        not_negative("svm_lr", self.lr)
        whole("svm_epochs", self.epochs, 0)
        one_of("attention", self.attention, get_args(Attention))


@dataclass
class AttentionSVM:
    """The machines of P pairs: a pair's score of z is ``w . (a(z) * z) + bias``, positive for its target class.

    The attention ``a(z) = exp(softmax(tanh(A z + b)))`` has entries between 1 and e (Zhou et al., Machine Learning
    2022). The tanh bounds what the softmax sees to [-1, 1], so for d units none exceeds
    ``exp(e / (e + (d - 1) / e))``, which is 1.11 for 64 and 1.015 for 500: it is nearly 1 by construction.

    Attributes:
        w: (P, d) weights, of which a step makes the move towards the target.
        bias: (P,) offsets.
        A: (P, d, d) weights of the attention, or None for none.
        b: (P, d) offsets of the attention, or None.
    """

    w: Tensor
    bias: Tensor
    A: Tensor | None = None
    b: Tensor | None = None

    def attention(self, z: Tensor) -> Tensor:
        """(P, N, d) weights of the units for (P, N, d) vectors; ones without attention."""
        return torch.ones_like(z) if self.A is None or self.b is None else attention(z, self.A, self.b)

    def score(self, z: Tensor) -> Tensor:
        """(P, N) scores of (P, N, d) vectors."""
        scores: Tensor = ((self.attention(z) * z) @ self.w[:, :, None])[..., 0] + self.bias[:, None]
        return scores

    def objective(self, z: Tensor, sign: Tensor, c: float) -> Tensor:
        """(P,) ``c * mean(max(0, 1 - sign * score)) + mean(w ** 2)``.

        Args:
            z: (P, N, d) vectors.
            sign: (P, N) -1 for the source, 1 for the target.
            c: weight of the hinge loss.
        """
        return c * (1 - sign * self.score(z)).clamp(min=0).mean(1) + self.w.square().mean(1)

    def step(self, z: Tensor, sign: Tensor, c: float, lr: float) -> None:
        """One step of plain SGD on the objective of one vector for each pair, in place, by its derivatives written out.

        Args:
            z: (P, d) vectors.
            sign: (P,) -1 for the source, 1 for the target, 0 for a pair that makes no step.
            c: weight of the hinge loss.
            lr: learning rate.
        """
        weight = self.attention(z[:, None])[:, 0]
        score = (self.w * weight * z).sum(1) + self.bias
        slope = torch.where(score * sign < 1, -c * sign, 0.0)[:, None]
        decay = 2 / z.shape[1] * torch.where((sign != 0)[:, None], self.w, 0.0)
        if self.A is not None and self.b is not None:
            share = weight.log()  # the softmax
            inner = self.w * z * weight * share
            bounded = torch.tanh((self.A @ z[:, :, None])[..., 0] + self.b)
            back = lr * slope * (inner - share * inner.sum(1, keepdim=True)) * (1 - bounded.square())
            self.A.baddbmm_(back[:, :, None], z[:, None], alpha=-1)
            self.b.sub_(back)
        self.w.sub_(lr * (slope * weight * z + decay))
        self.bias.sub_(lr * slope[:, 0])


def attention(z: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """(P, N, d) weights of the units, between 1 and e: ``exp(softmax(tanh(A z + b)))``.

    Args:
        z: (P, N, d) vectors.
        A: (P, d, d), one for each pair.
        b: (P, d).
    """
    bounded = torch.tanh(z @ A.transpose(1, 2) + b[:, None])
    return bounded.softmax(-1).exp()


def start(pairs: int, size: int, svm: SVMSettings, seed: int) -> AttentionSVM:
    """Machines before training: all numbers uniform in +-1/sqrt(d), as torch's linear layers begin.

    Args:
        pairs: P, how many machines.
        size: d, the length of a vector.
        svm: whether there is an attention.
        seed: of the numbers.
    """
    draws, reach = generator(seed, "svm"), 1 / math.sqrt(size)

    def draw(*shape: int) -> Tensor:
        return (2 * torch.rand(shape, generator=draws) - 1) * reach

    machines = AttentionSVM(draw(pairs, size), draw(pairs))
    if svm.attention == "pairwise":
        machines.A, machines.b = draw(pairs, size, size), draw(pairs, size)
    return machines


def fit(z: Tensor, sign: Tensor, svm: SVMSettings, seed: int) -> AttentionSVM:
    """Machines for the vectors of P pairs: plain SGD, one vector of each pair a step, in an order drawn from the seed.

    Cost: ``epochs * N`` steps of P d^2 operations, on the device of ``z``.

    Args:
        z: (P, N, d) vectors.
        sign: (P, N) -1 for a pair's source class, 1 for its target, 0 for what fills up a pair with fewer vectors.
        svm: how.
        seed: of the start and the order.
    """
    (pairs, count, size), each = z.shape, torch.arange(len(z), device=z.device)
    machines = start(pairs, size, svm, seed)
    for name, value in vars(machines).items():
        setattr(machines, name, None if value is None else value.to(z))
    for epoch in range(svm.epochs):
        order = torch.rand(pairs, count, generator=generator(seed, "order", epoch)).argsort(1).to(z.device)
        for rows in order.T:
            machines.step(z[each, rows], sign[each, rows], svm.c, svm.lr)
    return machines
