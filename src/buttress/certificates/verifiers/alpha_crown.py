"""alpha-CROWN: linear bounds with slopes that are optimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.certificates.bounds.intervals import tightened
from buttress.certificates.bounds.linear import Intervals, linear_bound
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.certificates.verifiers.crown import CROWN
from buttress.registry import verifier
from buttress.validation import positive, whole

_DECAY = 0.98  # of the learning rate, each step


@verifier("alpha-crown")
@dataclass(frozen=True, kw_only=True)
class AlphaCROWN(Verifier):
    """CROWN with the slope below each undecided ReLU optimised for each margin (Xu et al., ICLR 2021).

    Adam from CROWN's own slopes; of each margin the largest bound on the way is kept, so it is never below CROWN's.
    Differs from the released code in that bounds of the activations within stay CROWN's unless ``within`` is set; then
    the slopes that these are computed with are optimised as well, one for each unit and input. Cost: CROWN, and a
    forward and a backward of its last pass for each step; with ``within`` of all of its passes.

    Args:
        steps: of Adam.
        lr: its learning rate; times 0.98 at each step.
        within: whether to optimise bounds of activations within the network, too.
    """

    steps: int = 20
    lr: float = 0.25
    within: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("steps", self.steps)
        positive("lr", self.lr)

    def bound(self, problem: Problem) -> Answer:
        """The best of all steps, of each margin."""
        before = CROWN().bound(problem)
        network, region = problem.network, problem.region
        slopes, shared = Slopes(len(before.margins)), Slopes(1)
        best, best_slope = before.margins, problem.x.new_zeros(*before.margins.shape, 1, *problem.x.shape[1:])
        intervals: Intervals = problem.tightened
        with torch.enable_grad():
            optimiser: torch.optim.Adam | None = None
            for step in range(self.steps + 1):
                if self.within:
                    intervals = tightened(network, region, lines=shared)
                line = linear_bound(network, problem.margins, intervals, slopes)
                least = line.least(region)
                better = least.detach() > best
                best = torch.where(better, least.detach(), best)
                rows = better.view(*better.shape, *[1] * (best_slope.dim() - 2))
                best_slope = torch.where(rows, line.slope.detach(), best_slope)
                parameters = [*slopes.values.values(), *shared.values.values()]
                if step == self.steps or not parameters:
                    break
                optimiser = optimiser or torch.optim.Adam(parameters, lr=self.lr)
                for group in optimiser.param_groups:
                    group["lr"] = self.lr * _DECAY**step
                for parameter, grad in zip(parameters, torch.autograd.grad(-least.sum(), parameters), strict=True):
                    parameter.grad = grad
                optimiser.step()
                for parameter in parameters:
                    parameter.data.clamp_(0, 1)
        candidates = region.minimiser(best_slope)
        return Answer(best, candidates if before.candidates is None else torch.cat([before.candidates, candidates]))


class Slopes:
    """The slopes below activations that a `LowerLines` chooses, as numbers from 0 to 1 between the least slope and 1.

    Args:
        functions: S of the bounded functions that each have slopes of their own; 1 where they share them.

    Attributes:
        values: (S, N, 1, ...) by node, from the usual slope on.
    """

    def __init__(self, functions: int) -> None:
        self.functions, self.values = functions, dict[int, Tensor]()

    def __call__(self, index: int, slope: Tensor, free: Tensor, least: Tensor) -> Tensor:
        """The slope that has been chosen where it is free."""
        room = torch.where(free, 1 - least, 1).clamp(min=torch.finfo(slope.dtype).eps)
        if index not in self.values:
            start = torch.where(free, ((slope - least) / room).clamp(0, 1), 0).detach()
            self.values[index] = start.expand(self.functions, *start.shape).clone().requires_grad_()
        return torch.where(free, least + room * self.values[index], slope)
