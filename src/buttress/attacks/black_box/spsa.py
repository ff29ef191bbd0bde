"""SPSA: gradients estimated from pairs of random directions, followed by Adam."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.black_box.decision_based import Best
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, per_row
from buttress.validation import positive, whole

_MEAN, _SQUARE = 0.9, 0.999  # Adam's decays


@attack("spsa")
@dataclass(frozen=True, kw_only=True)
class SPSA(Attack):
    """Adam on gradients by simultaneous perturbation (Uesato et al., ICML 2018), projected after each step.

    Published in linf; the steps are the same in the other norms, only the projection differs. Points asked about are
    clipped to the box, so that at its edge a coordinate's slope comes out as half. Our choices: the start is the input
    itself, every iterate is asked about, and the one of the highest loss is returned, among those that fool the model
    if any do.

    Cost per input: 1 + ``steps`` (2 ``samples`` + 1) forwards.

    Args:
        threat: what is allowed.
        steps: steps of Adam.
        samples: random directions in each estimate, each asked about in both senses (published
            results use thousands).
        delta: how far the questions are from the iterate, coordinate by coordinate, in widths of the box; see
            `Threat.widths`.
        lr: Adam's learning rate, likewise.
        loss: name of a loss, or any callable (logits, y) -> (N,).
    """

    strays = True  # the questions may be further away than eps

    threat: Threat = NOT_GIVEN
    steps: int = 100
    samples: int = 32
    delta: float = 0.01
    lr: float = 0.01
    loss: LossLike = "margin"

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        whole("samples", self.samples)
        positive("delta", self.delta)
        positive("lr", self.lr)
        check_threat("SPSA", self.threat)
        resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """The input, and each step its pairs and its end."""
        return PassCount(1 + self.steps * (2 * self.samples + 1))

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The best iterate, see `Best`; the input itself is one."""
        project, widths = self.threat.projector(x), self.threat.widths(x)
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        loss = oracle.loss(x, self.loss)
        at, best = x, Best(x, loss, oracle.success)
        for step in range(1, self.steps + 1):
            if oracle.done:
                break
            grad = self.estimate(oracle, at, random)
            mean, square = mean.lerp(grad, 1 - _MEAN), square.lerp(grad.square(), 1 - _SQUARE)
            root = (square / (1 - _SQUARE**step)).sqrt()
            at = project(at + self.lr * widths * (mean / (1 - _MEAN**step)) / (root + 1e-8))
            loss = oracle.loss(at, self.loss)
            best.offer(at, loss, oracle.success)
        return best.point

    def estimate(self, oracle: Oracle, x: Tensor, random: Random) -> Tensor:
        """(N, ...) the mean of (loss(x + delta v) - loss(x - delta v)) / (2 delta) times v, over signs v, in widths."""
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            direction = random.sign(x.shape[1:], x.dtype)
            step = self.delta * self.threat.widths(x) * direction
            ahead, behind = (oracle.loss(self.threat.clip(x + way, oracle.x), self.loss) for way in (step, -step))
            rise = ahead - behind
            total += per_row(rise, x) * direction
        return total / (2 * self.delta * self.samples)
