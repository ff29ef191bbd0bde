"""Projected gradient descent with a temperature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from buttress.attacks.gradient.pgd import PGD, Start
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import number, positive


def tempered_margin(logits: Tensor, y: Tensor, temperature: float) -> Tensor:
    """T (m - log(C - 1)) with the log-odds m = LSE_{j != y}(z_j / T) - z_y / T and C classes.

    Cross-entropy of z / T is softplus(m), so for one input its gradient points the same way wherever it does not
    vanish; this one never vanishes. Multiplying by T and taking the constant off keeps loss and gradient of the size of
    the logits for every T: towards 0 it becomes max_{j != y} z_j - z_y, the margin, and towards infinity
    mean_{j != y} z_j - z_y.

    Args:
        logits: (N, C).
        y: (N,) classes.
        temperature: T, positive.

    Returns:
        (N,) the loss, to be maximised.
    """
    index = torch.arange(logits.shape[1] - 1, device=y.device)
    others = logits.gather(1, index + (index >= y[:, None]).long())
    best = others.amax(1)
    # log of a mean of exponentials that keeps its precision where all of them are close to 1.
    spread = torch.expm1((others - best[:, None]) / temperature).mean(1).log1p()
    return best - logits.gather(1, y[:, None]).squeeze(1) + temperature * spread


@attack("t-pgd")
@dataclass(frozen=True, kw_only=True)
class TPGD(Attack):
    """Temperature-PGD: PGD on the softmax of the logits over T (Tian et al., KDD 2021), by its log-odds.

    1/T between 1/10 and 100 is worth trying; choose it on validation data. In float32 cross-entropy's own gradient is
    zero for many inputs when 1/T is large, which looks like robustness; see `tempered_margin`, which is used instead.

    Cost per input and restart: ``steps`` forwards and backwards, and one forward when there is more than one restart.

    Args:
        threat: what is allowed.
        steps: gradient steps of each restart.
        step_size: length of a step in input units; 2.5 eps / steps unless given.
        restarts: independent runs; the point of the highest loss is returned.
        start: as for PGD.
        temperature: T; 1 gives the directions of PGD on cross-entropy, small values those of PGD on the margin.
    """

    needs_classes = True

    threat: Threat = NOT_GIVEN
    steps: int = 10
    step_size: float | None = None
    restarts: int = 1
    start: Start = "uniform"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        positive("temperature", self.temperature)
        number("1 / temperature", 1 / self.temperature)
        self._pgd()

    def label(self) -> str:
        """With the temperature where it is not the usual one: "T-PGD-20 (T = 0.5)"."""
        usual = self.temperature == type(self).temperature
        return super().label() + ("" if usual else f" (T = {self.temperature:g})")

    def search_passes(self, classes: int) -> PassCount:
        """Those of PGD."""
        return self._pgd().search_passes(classes)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """That of PGD."""
        return self._pgd().perturb(oracle, x, y, random)

    def _pgd(self) -> PGD:
        return PGD(
            threat=self.threat,
            steps=self.steps,
            step_size=self.step_size,
            restarts=self.restarts,
            start=self.start,
            loss=partial(tempered_margin, temperature=self.temperature),
        )
