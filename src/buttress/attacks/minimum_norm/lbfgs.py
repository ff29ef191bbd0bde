"""The first attack on deep networks: L-BFGS in the box, on the distance plus the loss of a successful example."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.float64 import above_zero
from buttress.losses import Loss
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, norms, per_row
from buttress.validation import positive, whole

_MEMORY = 5  # steps that the curvature is learnt from
_DESCENT = 1e-4  # Armijo's constant: the share of the promised descent that a step must bring
_SHORTEST = 1e-6  # a search along a line ends here: without the curvature learnt so far, and then for good
_ESTIMATED = 2.0**-39  # below this the oracle hands on directions of the loss, not slopes, and the slope is 0


def _log_odds_escape(logits: Tensor, y: Tensor) -> Tensor:
    """Log-probability of all classes but ``y`` together."""
    return logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - logits.logsumexp(1)


def _log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probability of the target."""
    return logits.log_softmax(1).gather(1, target[:, None]).squeeze(1)


_SUCCESS = Loss(_log_odds_escape, targeted=_log_probability)


@attack("lbfgs")
@dataclass(frozen=True, kw_only=True)
class LBFGS(MinimumNorm):
    """Box-constrained L-BFGS (Szegedy et al., ICLR 2014; Tabacof and Valle, IJCNN 2016), in l2.

    Minimises c |delta|^2 - log p, with delta in widths of the box (see `Threat.unit`), where p is the probability of
    the target or, without one, of all classes but the truth. The largest ``c`` whose minimum still fools the
    model is searched for each input by itself: up or down by factors of ten until it is between two values, then by
    their geometric mean. The smallest perturbation met anywhere on the way is returned.

    The minimiser is written for batches, one state per input: each evaluation is a trial point of every input, clipped
    to the box; too little descent (Armijo) shortens that input's step. Coordinates that the box holds back are left out
    of the curvature (Bertsekas, "Projected Newton methods", SIAM J. Control and Optimization 1982).

    Cost per input: at most ``search_steps`` times ``steps`` forwards and backwards, and one forward; an input rests
    from the end of a run to the next.

    Args:
        threat: norm "l2" and the box; the smallest perturbation found counts where it is within ``eps``.
        steps: gradient evaluations for each value of ``c``.
        search_steps: values of ``c`` tried.
        c: the first one.
    """

    needs_classes = True

    threat: Threat = NOT_GIVEN
    steps: int = 50
    search_steps: int = 9
    c: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_threat("LBFGS", self.threat, "l2")
        whole("steps", self.steps)
        whole("search_steps", self.search_steps)
        positive("c", self.c)

    def search_passes(self, classes: int) -> PassCount:
        """Every step of every search."""
        steps = self.search_steps * self.steps
        return PassCount(steps, steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The smallest perturbation met on the way that fools the model."""
        best = Smallest(oracle, self.threat)
        c = torch.full(x.shape[:1], self.c, dtype=torch.float64, device=x.device)
        low, high = torch.zeros_like(c), torch.full_like(c, math.inf)
        for _ in range(self.search_steps):
            won = _Descent(oracle, self.threat, c, best).run(self.steps)
            if oracle.done:
                break
            low, high = torch.where(won, c, low), torch.where(won, high, c)
            c = torch.where(low == 0, high / 10, torch.where(high.isinf(), low * 10, (low * high).sqrt()))
        return best.point


class _Descent:
    """One minimisation for each input, all with a ``c`` of their own; see `LBFGS`."""

    def __init__(self, oracle: Oracle, threat: Threat, c: Tensor, best: Smallest) -> None:
        self.oracle, self.threat, self.c, self.best = oracle, threat, c, best
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.unit = threat.unit
        self.low, self.high = threat.limits(oracle.x)

    def run(self, evaluations: int) -> Tensor:
        """(N,) bool, whether the last point that was accepted fools the model."""
        point = self.oracle.x
        self.oracle.rest(self.best.settled)
        value, grad, won = self._ask(point)
        running, restarted = ~self.best.settled, torch.ones_like(won)
        # The first curvature is that of the distance, unless that would lead out of sight.
        scale = torch.minimum(0.5 * self.unit**2 / self.c, self.unit / norms(grad.double(), "l2").clamp(min=1e-30))
        length = torch.ones_like(value)
        direction = self._direction(point, grad, scale)
        for _ in range(evaluations - 1):
            self.oracle.rest(~running)
            if self.oracle.done:
                break
            moved = point + per_row(length, point).to(point.dtype) * direction
            trial = self.threat.clip(moved, self.oracle.x)
            promised = _dot(grad, trial - point)
            new_value, new_grad, new_won = self._ask(trial)
            accepted = running & (promised < 0) & (new_value <= value + _DESCENT * promised)
            scale = self._learn(trial - point, new_grad - grad, accepted, scale)
            point, grad = (_chosen(accepted, new, old) for new, old in ((trial, point), (new_grad, grad)))
            # After a refusal, the minimum of the parabola through what is known of the line.
            share = -promised / (2 * above_zero(new_value - value - promised))
            length = torch.where(accepted, 1.0, length * share.nan_to_num(0.1).clamp(0.1, 0.5))
            value, won = torch.where(accepted, new_value, value), torch.where(accepted, new_won, won)
            stuck = length < _SHORTEST
            running = running & ~(stuck & restarted)
            restarted = torch.where(accepted, False, restarted | stuck)
            self._forget(stuck)
            length = torch.where(stuck, 1.0, length)
            direction = self._direction(point, grad, scale)
        self.oracle.wake()
        return won

    def _ask(self, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) float64 objective, its gradient, and whether the point is adversarial."""
        gain, grad = self.oracle.loss_and_grad(point, _SUCCESS)
        success = self.oracle.success.clone()
        self.best.offer(point, success)
        delta = point - self.oracle.x
        grad = self.threat.free(torch.where(per_row(gain > -_ESTIMATED, grad), 0, grad))
        c = self.c / self.unit**2
        value = c * norms(delta.double(), "l2").square() - gain.double()
        return value, per_row(2 * c, delta).to(delta.dtype) * delta - grad, success

    def _learn(self, moved: Tensor, bent: Tensor, accepted: Tensor, scale: Tensor) -> Tensor:
        """Keep a step and the change of gradient along it; (N,) the new first guess of the inverse curvature."""
        along, size = _dot(moved, bent), _dot(bent, bent)
        useful = accepted & (along > 1e-10 * self.unit**2 * size) & (size > 0)
        self.pairs = [*self.pairs[1 - _MEMORY :], (moved, bent, useful)]
        return torch.where(useful, along / above_zero(size), scale)

    def _forget(self, rows: Tensor) -> None:
        self.pairs = [(moved, bent, useful & ~rows) for moved, bent, useful in self.pairs]

    def _direction(self, point: Tensor, grad: Tensor, scale: Tensor) -> Tensor:
        """(N, ...) the quasi-Newton direction among the coordinates that are free to move (two-loop recursion)."""
        free = (~(((point <= self.low) & (grad > 0)) | ((point >= self.high) & (grad < 0)))).to(point.dtype)
        result, pairs = -grad * free, []
        for moved, bent, useful in reversed(self.pairs):
            moved, bent = moved * free, bent * free
            along = _dot(moved, bent)
            share = torch.where(useful & (along > 0), 1 / above_zero(along), 0)
            weight = share * _dot(moved, result)
            result = result - per_row(weight, point).to(point.dtype) * bent
            pairs.append((moved, bent, share, weight))
        result = result * per_row(scale, point).to(point.dtype)
        for moved, bent, share, weight in reversed(pairs):
            result = result + per_row(weight - share * _dot(bent, result), point).to(point.dtype) * moved
        return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(N,) float64 inner products."""
    return (a.double() * b.double()).flatten(1).sum(1)


def _chosen(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(per_row(rows, new), new, old)
