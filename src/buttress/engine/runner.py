"""How a model is run for an attack: itself or a faster copy, in which precision, in which batches, how often."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from buttress.engine.ledger import Rows
from buttress.engine.preserved_model import Model, in_train_mode
from buttress.engine.twin import Compiled, NoTwinError, Twin, out_of_memory
from buttress.errors import UserError, one_line
from buttress.model_call import call_model
from buttress.tasks import Task

Precision = Literal["fp32", "bf16", "folded", "twin", "compiled", "auto"]
CraftPrecision = Literal["fp32", "bf16", "folded", "twin"]  # what training may ask for: the same on every machine
Twins = dict[Precision, "Twin | Compiled | None"]  # None: the model has no such copy
# Of (M, ...) points of the inputs at these rows: the output (M, C), and what is made of it, (M, ...) each.
Question = Callable[[Tensor, Rows], tuple[Tensor, ...]]
_EXACT: dict[Precision, Precision] = {"bf16": "fp32", "twin": "folded", "compiled": "folded"}
_TIMED = 64  # inputs of the batch that "auto" times
log = logging.getLogger(__name__)


class Runner:
    """One model, and the way in which it is run.

    Precisions: "fp32" and "bf16" (autocast) run the model itself. "folded" runs a float32 copy with BatchNorm folded
    into the convolutions, "twin" such a copy in bf16, "compiled" the twin through ``torch.compile`` (with CUDA graphs
    on a GPU) in batches of one size. Where no such copy can be made, float32 and bf16 are used and the log says why.
    Inputs in float64 are searched by the model itself in float64, which is reported as "fp32": nothing was made faster.
    "auto" becomes the fastest of the first four at the first question, see `settle`.

    Args:
        model: the caller's.
        task: reads its output.
        precision: of all passes that do not ask for float32; as an attribute, after the first, what they ran in.
        batch_size: inputs computed at once; halved when memory runs out.
        draws: passes whose mean is one answer; for models that draw at random.
        twins: copies made before, whose weights are filled again; new ones are put there. For training.
        exact: run in float32 whatever was asked for: "bf16" becomes "fp32", a twin "folded".
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        precision: Precision,
        batch_size: int,
        draws: int = 1,
        twins: Twins | None = None,
        exact: bool = False,
    ) -> None:
        self.model, self.task, self.batch_size, self.draws, self.exact = model, task, batch_size, draws, exact
        self.precision = _EXACT.get(precision, precision) if exact else precision
        self._twins = {} if twins is None else twins
        self._stale = set(self._twins)
        self._channels_last, self._bf16 = True, True

    @property
    def trains(self) -> bool:
        """Whether the model, or a part of it, is in train mode."""
        return in_train_mode(self.model)

    def mean(self, draws: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Of several passes: the outputs as the task takes means, and the mean of whatever came with them."""
        outputs, *others = zip(*draws, strict=True)
        return self.task.mean(outputs), *(torch.stack(values).mean(0) for values in others)

    def run(self, x: Tensor, precision: Precision) -> Any:
        """The model's raw output in this precision, or in the next plainer one that it can run in."""
        twin = self.twin(precision, x) if precision in ("folded", "twin", "compiled") else None
        if twin is not None:
            return twin(x)
        used = "fp32" if x.dtype != torch.float32 else self.used(precision)
        self.precision = used if self.precision == precision else self.precision  # what ran is reported
        if used != "bf16":
            return call_model(self.model, x)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            if x.dim() == 4 and self._channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            return call_model(self.model, x)

    def relax(self, error: Exception, precision: Precision) -> bool:
        """Give up what a network may not support, after ``error``: channels last, the copy, bf16, in this order.

        Returns:
            False where nothing is left to give up, or the error is not the pass's own.
        """
        if isinstance(error, UserError) or out_of_memory(error):
            return False
        twin = self._twins.get(precision)
        if twin is not None:
            if not twin.relax():
                self._twins[precision] = None
        elif self.used(precision) != "bf16":
            return False
        elif self._channels_last:
            self._channels_last = False
        else:
            self._bf16 = False
        log.info("a pass in %s is made again in the next plainer way: %s", precision, one_line(error))
        return True

    def settle(self, x: Tensor, answer: Callable[[Tensor, Precision], Tensor]) -> None:
        """Make the precision "auto" the fastest one, by timing an answer about the first of these inputs in each.

        Args:
            x: (N, ...) inputs.
            answer: computes an answer about some inputs in a precision.
        """
        part, seconds = x[: min(self.batch_size, _TIMED)], dict[Precision, float]()
        names: list[Precision] = ["fp32", "bf16", "folded", "twin"] if x.dtype == torch.float32 and len(x) else ["fp32"]
        for precision in (name for name in names if not (self.exact and name in _EXACT)):
            if precision in ("folded", "twin") and self.twin(precision, x[: self.batch_size]) is None:
                continue
            for _ in range(3):
                start = perf_counter()
                answer(part, precision).sum().item()
                seconds[precision] = min(seconds.get(precision, torch.inf), perf_counter() - start)
            if self.used(precision) != precision:  # it could not run, and another one was timed
                del seconds[precision]
        self.precision = min(seconds, key=lambda name: seconds[name])
        times = ", ".join(f"{name} {time:.4f} s" for name, time in seconds.items())
        log.info("search precision: %s; %s a batch of %d", self.precision, times, len(part))

    def in_batches(self, points: Tensor, rows: Tensor | None, question: Question) -> list[Tensor]:
        """The answers about (M, ...) points of these inputs; ``batch_size`` is halved when memory runs out."""
        start, results = 0, list[tuple[Tensor, ...]]()
        while start < len(points):
            part = slice(start, min(start + self.batch_size, len(points)))
            try:
                results.append(question(points[part], part if rows is None else rows[part]))
            except RuntimeError as error:
                if not out_of_memory(error) or part.stop - start == 1:
                    raise
                self.batch_size = (part.stop - start) // 2
                log.warning("out of memory: the compute batch is halved to %d inputs", self.batch_size)
            else:
                start = part.stop
        return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*results, strict=True)]

    def used(self, precision: Precision) -> Precision:
        """What runs where ``precision`` was asked for, as far as earlier passes have shown."""
        if precision in ("folded", "twin", "compiled"):
            if self._twins.get(precision) is not None:
                return precision
            precision = "fp32" if precision == "folded" else "bf16"
        return "fp32" if precision == "bf16" and not self._bf16 else precision

    def twin(self, precision: Precision, x: Tensor) -> Twin | Compiled | None:
        """The copy of the model for this precision, made from the first inputs; None where there is none."""
        if precision not in self._twins:
            self._twins[precision] = self._copy(precision, x)
        twin = self._twins[precision]
        if twin is not None and precision in self._stale:
            twin.refill(cast(nn.Module, self.model))
            self._stale.discard(precision)
        return twin

    def _copy(self, precision: Precision, x: Tensor) -> Twin | Compiled | None:
        try:
            if not isinstance(self.model, nn.Module):
                raise NoTwinError("it is no torch module")
            if self.draws > 1:
                raise NoTwinError("it draws at random")
            twin = Twin(self.model, x.detach()[:8], bf16=precision != "folded")
        except Exception as reason:
            if isinstance(reason, UserError) or out_of_memory(reason):
                raise
            log.info("no %s copy of the model: %s", precision, one_line(reason))
            return None
        return Compiled(twin, self.batch_size) if precision == "compiled" else twin
