"""Auto-PGD: projected gradient descent that chooses its own step sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from buttress.attacks.gradient.apgd_run import run_l1, run_momentum
from buttress.attacks.gradient.l1_geometry import project_l1
from buttress.engine.attack import Attack
from buttress.engine.oracle import Inside, Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import Loss, LossLike, margin, margin_toward, ranked, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, per_row
from buttress.validation import share, whole


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step size may be halved: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    interval, shortest, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    marks, at = [], interval
    while at <= steps:
        marks.append(at)
        interval = max(interval - shrink, shortest)
        at += interval
    return marks


@attack("apgd")
@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD (Croce and Hein, ICML 2020, algorithm 1), in linf, l2 and l1 as published with AutoAttack.

    In l1 it is the form of Croce and Hein (ICML 2021): steps along the signs of the largest gradient entries, as many
    as the sparsity of the best point so far suggests, and exact projections onto the ball within the box. They are the
    best point's over 1.5, rounded up as released: two coordinates stay two, so that a weakness in a single one may be
    missed. Returned for each input: the last iterate that fooled the model, in the first restart that had one, as the
    search's precision saw it; where none did, the point of the highest loss.

    Cost per input and restart: ``steps`` + 1 forwards and ``steps`` backwards, with ``large_start`` two forwards more.
    Where there are several restarts or targets, an input with an adversarial example takes no part in those that
    follow, each costs one forward more, and `AttackResult.stages` has the figures of each.

    Args:
        threat: what is allowed.
        steps: gradient steps of each restart.
        restarts: independent runs, with ``targets`` for each of them.
        loss: "cross_entropy", "dlr", another loss's name, or any callable (logits, y) -> (N,); the task's own
            unless given, and where there are targets "dlr", or the lead itself with fewer than 4 classes.
        rho: the step size is halved where fewer than this share of an interval's steps raised the loss (linf, l2).
        targets: how many classes to lead an input to, in the order of the clean logits, the runner-up first; all
            others at most. 0 leads it away from the truth. An attack that was given a target leads there.
        large_start: in l1 spend 30 % of the steps in a ball of 3 eps, 30 % in one of 2 eps, and the rest in that of
            eps, each from the best point of the last; in other norms there is no such start.
    """

    without_classes = "targets=0"

    threat: Threat = NOT_GIVEN
    steps: int = 100
    restarts: int = 1
    loss: LossLike | None = None
    rho: float = 0.75
    targets: int = 0
    large_start: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        whole("restarts", self.restarts)
        whole("targets", self.targets, 0)
        share("rho", self.rho)
        if self.loss is not None:
            resolve(self.loss)

    @property
    def needs_classes(self) -> bool:
        """Targets are classes."""
        return self.targets > 0

    def inside(self) -> Inside | None:
        """A large start asks about points outside of the threat."""
        return self.threat.contains if self.large_start and self.threat.norm == "l1" else None

    def search_passes(self, classes: int) -> PassCount:
        """Those of each run, and one forward more where there are several."""
        runs = self.restarts * (min(self.targets, classes - 1) or 1)
        large = 2 if self.large_start and self.threat.norm == "l1" else 0
        forwards = self.steps + 1 + large + (1 if runs > 1 else 0)
        return PassCount(runs * forwards, runs * self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """See the class: the last adversarial point, else the point of the highest loss."""
        rounds = list(self._rounds(oracle))
        if len(rounds) == 1:
            return self._run(oracle, random, rounds[0][1])[0]
        result, highest = x.clone(), torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
        success = torch.zeros_like(highest, dtype=torch.bool)
        for number, (name, toward) in enumerate(rounds):
            rows = (~success & oracle.alive).nonzero().squeeze(1)
            if not len(rows):
                break
            rows = torch.arange(len(x), device=x.device) if oracle.together else rows
            draws = random.only(rows) if number == 0 else random.only(rows).fork("round", number)
            part = oracle.only(rows, inside=oracle.inside, search=oracle.search)
            point, loss, _ = self._run(part, draws, None if toward is None else toward[rows])
            point, output = part.settle(self.threat.project(point, part.x))
            won = oracle.merge(part, rows, point, output, name)
            taken = ~success[rows] & (won | (loss > highest[rows]))
            result[rows] = torch.where(per_row(taken, x), point, result[rows])
            highest[rows] = torch.where(taken, loss, highest[rows])
            success[rows] |= won
        return result

    def _rounds(self, oracle: Oracle) -> Iterator[tuple[str, Tensor | None]]:
        """Name and (N,) classes to be led to, or None, of each run."""
        if not self.targets or oracle.target is not None:
            for restart in range(self.restarts):
                yield f"restart {restart + 1}", None
            return
        classes = ranked(oracle.clean, oracle.y, self.targets)
        for k in range(classes.shape[1]):
            for restart in range(self.restarts):
                yield f"target {k + 1}" + (f", restart {restart + 1}" if self.restarts > 1 else ""), classes[:, k]

    def _run(self, oracle: Oracle, random: Random, toward: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """One restart: the point to return, the highest loss met, and whether an iterate fooled the model."""
        loss = self.loss
        if loss is None and self.targets:
            loss = "dlr" if oracle.clean.shape[1] >= 4 else Loss(margin, toward=margin_toward)
        if self.threat.norm != "l1":
            start, marks = self._start(oracle.x, random), checkpoints(self.steps)
            return run_momentum(oracle, self.threat, start, self.steps, marks, self.rho, loss, toward)
        if not self.large_start or math.isinf(self.threat.eps):
            start = self._start(oracle.x, random)
            return run_l1(oracle, self.threat, start, self.steps, loss, toward, known=False)
        first = second = math.ceil(0.3 * self.steps)
        phases = [(3, first), (2, min(second, self.steps - first)), (1, max(self.steps - first - second, 0))]
        point = oracle.x + self.threat.widths(oracle.x) * random.normal(oracle.x.shape[1:], oracle.x.dtype)
        for times, steps in phases:
            threat = replace(self.threat, eps=times * self.threat.eps)
            point = project_l1(point, oracle.x, threat)
            result = run_l1(oracle, threat, point, steps, loss, toward, known=True, best=times > 1)
            point = result[0]
        return result

    def _start(self, x: Tensor, random: Random) -> Tensor:
        """On the surface of the ball: a random point of the cube, or a random direction, scaled to length eps."""
        if math.isinf(self.threat.eps):
            return self.threat.random_start(x, random)
        shape, norm = x.shape[1:], self.threat.norm
        delta = 2 * random.uniform(shape, x.dtype) - 1 if norm == "linf" else random.normal(shape, x.dtype)
        delta = self.threat.shared(delta)
        if norm == "l1":
            return project_l1(x + self.threat.widths(x) * delta, x, self.threat)
        return self.threat.project(
            x + delta * per_row(self.threat.eps / self.threat.size(delta).clamp(min=1e-30), x), x
        )
