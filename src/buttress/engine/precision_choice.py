"""Which precision of the search is the fastest for a model on this machine."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from buttress.engine.ledger import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from buttress.engine.oracle import Oracle
    from buttress.engine.runner import Precision

_TIMED = 64  # inputs of the batch that is timed
log = logging.getLogger(__name__)


def choose_precision(oracle: Oracle, *, gradient: bool) -> None:
    """Settle the precision "auto": time a gradient, or a forward pass, of the first inputs in each; it is not counted.

    Args:
        oracle: whose runner is given the fastest precision.
        gradient: whether gradients will be asked for.

    Raises:
        UserError: when gradients are wanted of a model that has none.
    """
    runner, inputs = oracle.runner, oracle.ledger.take(oracle.x)
    x, seconds = inputs[: min(runner.batch_size, _TIMED)], dict["Precision", float]()
    names: list[Precision] = ["fp32", "bf16", "folded", "twin"] if x.dtype == torch.float32 and len(x) else ["fp32"]
    for precision in (name for name in names if runner.allows(name)):
        if precision in ("folded", "twin") and runner.twin(precision, inputs[: runner.batch_size]) is None:
            continue
        for _ in range(3):
            seconds[precision] = min(seconds.get(precision, torch.inf), _time(oracle, x, precision, gradient))
        if runner.used(precision) != precision:  # it could not run, and another one was timed
            del seconds[precision]
    runner.precision = min(seconds, key=lambda name: seconds[name])
    times = ", ".join(f"{name} {time:.4f} s" for name, time in seconds.items())
    log.info("search precision: %s; %s a batch of %d", runner.precision, times, len(x))


def _time(oracle: Oracle, x: Tensor, precision: Precision, gradient: bool) -> float:
    """Seconds for one answer about ``x``."""

    def ends(output: Tensor, rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
        return [], [torch.ones_like(output)]

    rows, before = oracle.ledger.take(torch.arange(len(oracle.x), device=x.device)), oracle.forwards.clone()
    start = perf_counter()
    answer = oracle.answers(x, rows[: len(x)], ends if gradient else None, 0, precision)
    answer[-1].sum().item()
    seconds = perf_counter() - start
    oracle.forwards.copy_(before)  # timing is not counted
    return seconds
