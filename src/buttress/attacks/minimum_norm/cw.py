"""Carlini and Wagner's L2 attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.box_variable import BoxVariable
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, norms, per_row
from buttress.validation import not_negative, positive, whole

_STALLED = 0.9999  # a run is over for an input when a tenth of its steps does not bring the objective below this share
_DECAYS = (0.9, 0.999)  # Adam's


@attack("cw")
@dataclass(frozen=True, kw_only=True)
class CW(MinimumNorm):
    """The L2 attack of Carlini and Wagner (S&P 2017): the smallest distance plus ``c`` times the margin still missing.

    Distances count in widths of the box (see `Threat.unit`), so that ``c`` means the same in any box. The input is
    written as a tanh of a free variable, which keeps it in the box (where an end is infinite, see `BoxVariable`); Adam
    minimises the objective, and a binary search chooses ``c`` for each input by itself: after a success the mean
    of its bounds, after a failure the same, or ten times ``c`` while there is no upper bound. The smallest perturbation
    met at any step of any run is returned.

    Cost per input: at most ``search_steps`` times ``steps`` forwards and backwards, and one forward; an input rests
    from the end of a run to the next. The published number of steps is 10 000; the default is 1000, at a tenth of the
    cost. Far fewer are not enough: at the edges of the box the tanh is flat, and a black or white pixel takes long to
    move.

    Args:
        threat: norm "l2" and the box; the smallest perturbation found counts where it is within ``eps``.
        steps: of Adam, for each value of ``c``.
        search_steps: values of ``c`` tried.
        c: the first one.
        lr: Adam's learning rate, in the free variable.
        confidence: by how much the margin must be won for a point to count, kappa in the paper.
        abort_early: whether an input's run ends when a tenth of the steps no longer lowers its objective.
    """

    threat: Threat = NOT_GIVEN
    steps: int = 1000
    search_steps: int = 9
    c: float = 1e-3
    lr: float = 0.01
    confidence: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_threat("CW", self.threat, "l2")
        whole("steps", self.steps)
        whole("search_steps", self.search_steps)
        positive("c", self.c)
        positive("lr", self.lr)
        not_negative("confidence", self.confidence)

    def search_passes(self, classes: int) -> PassCount:
        """Every step of every search."""
        steps = self.search_steps * self.steps
        return PassCount(steps, steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The smallest perturbation met on the way that fools the model by ``confidence``."""
        best = Smallest(oracle, self.threat)
        c = torch.full(x.shape[:1], self.c, dtype=torch.float64, device=x.device)
        low, high = torch.zeros_like(c), torch.full_like(c, math.inf)
        for _ in range(self.search_steps):
            won = self._run(oracle, x, c, best)
            if oracle.done:
                break
            low, high = torch.where(won, low, c), torch.where(won, c, high)
            c = torch.where(high.isfinite(), (low + high) / 2, c * 10)
        return best.point

    def _run(self, oracle: Oracle, x: Tensor, c: Tensor, best: Smallest) -> Tensor:
        """Adam from the input itself; (N,) bool, whether any step fooled the model."""
        variable, unit = BoxVariable(self.threat, x), self.threat.unit
        free = variable.of_inputs()
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        running, won = ~best.settled, torch.zeros_like(oracle.alive)
        before = torch.full_like(c, math.inf)
        oracle.rest(~running)
        pause = max(self.steps // 10, 1)
        for step in range(1, self.steps + 1):
            if oracle.done:
                break
            x_adv, slope = variable.points(free)
            x_adv = self.threat.clip(x_adv, x)
            gain, grad = oracle.loss_and_grad(x_adv, "margin")
            missing = self.confidence - gain
            success = running & oracle.success & (missing <= 0)
            best.offer(x_adv, success)
            won = won | success
            if self.abort_early and step % pause == 0:
                objective = (norms((x_adv - x).double(), "l2") / unit).square() + c * missing.clamp(min=0)
                running = running & (objective <= _STALLED * before)
                before = objective
                oracle.rest(~running)
            pull = torch.where(missing > 0, c, 0).to(x.dtype)
            grad = (2 * (x_adv - x) / unit**2 - per_row(pull, x) * grad) * slope
            first = torch.lerp(grad, first, _DECAYS[0])
            second = torch.lerp(grad.square(), second, _DECAYS[1])
            spread = (second / (1 - _DECAYS[1] ** step)).sqrt() + 1e-8
            moved = free - self.lr / (1 - _DECAYS[0] ** step) * first / spread
            free = torch.where(per_row(running, x), moved, free)
        oracle.wake()
        return won
