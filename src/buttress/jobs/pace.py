"""How long a pass of a network takes, there and back, by a few that are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.engine.runner import Runner
from buttress.errors import UserError
from buttress.tasks import Task

_LEAST, _TIMED, _LONG = 2, 5, 1.0  # passes timed at least, as a first one sets up; at most; seconds that end it
_FEW, _SLOW = 16, 0.1  # inputs timed first; where they take as many seconds there and back, the whole batch is not


@dataclass(frozen=True)
class Pace:
    """Seconds of a batch forward, and backward to its inputs; and how many outputs the network has, such as classes."""

    forward: float
    backward: float
    outputs: int

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Pace:
        """Time a few passes of this batch, as an attack makes them; where some of its inputs take long, of those."""
        few = cls._timed(model, x[:_FEW], y[:_FEW], task)
        if len(x) <= _FEW:
            return few
        if few.forward + few.backward > _SLOW:
            share = len(x) / _FEW
            return cls(few.forward * share, few.backward * share, few.outputs)
        return cls._timed(model, x, y, task)

    @classmethod
    def _timed(cls, model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Pace:
        with preserved(model, "eval", 0, x.device):
            oracle = Oracle(Runner(model, task, "fp32", len(x)), x, y)
            outputs = oracle.logits(x)[0].numel()  # and what a first pass takes longer is over
            forward = _shortest(lambda: oracle.logits(x))
            try:
                both = _shortest(lambda: oracle.loss_and_grad(x)[1])
            except UserError:  # no gradient, which attacks that need one will say
                both = forward
        return cls(forward, max(0.0, both - forward), outputs)

    def seconds(self, passes: PassCount) -> float:
        """For a batch."""
        return passes.forwards * self.forward + passes.backwards * self.backward


def _shortest(run: Callable[[], Tensor]) -> float:
    """Seconds of the quickest of a few runs; of two alone, where these take long."""
    seconds: list[float] = []
    while len(seconds) < _LEAST or (len(seconds) < _TIMED and sum(seconds) < _LONG):
        start = time.perf_counter()
        run().sum().item()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
