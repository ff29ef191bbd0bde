"""Running the caller's model for an attack: in batches that fit, in the precision asked for, with exact slopes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from buttress.engine.preserved_model import Model
from buttress.engine.twin import NoTwinError, Twin, out_of_memory, told
from buttress.errors import UserError
from buttress.tasks import Task
from buttress.threat import per_row

Precision = Literal["fp32", "bf16", "folded", "twin", "compiled", "auto"]
CraftPrecision = Literal["fp32", "bf16", "folded", "twin"]  # what training may ask for: the same on every machine
Value = Callable[[Tensor], Tensor]
T = TypeVar("T")
Twins = dict[Precision, "Twin | Compiled | None"]  # None: the model has no such copy
_EXACT: dict[Precision, Precision] = {"bf16": "fp32", "twin": "folded", "compiled": "folded"}
log = logging.getLogger(__name__)

# Below this a row's loss gradient is handed on scaled up: its true size would be lost in float32 further down.
_FAINT = 2.0**-40
_TIMED = 64  # inputs of the batch that "auto" times


class Runner:
    """Forward and backward passes of one model.

    Precisions: "fp32" and "bf16" (autocast) run the model itself. "folded" runs a float32 copy with BatchNorm folded
    into the convolutions, "twin" such a copy in bf16, "compiled" the twin through ``torch.compile`` (with CUDA graphs
    on a GPU) in batches of one size. Where no such copy can be made, float32 and bf16 are used and the log says why.
    Where a pass raises something, forward or backward, it is made again: with images laid out as usual and not channels
    last, then without the copy, then in float32; what the model itself raises in the end is the caller's.
    Inputs in float64 are searched by the model itself in float64, which is told as "fp32": nothing was made faster.
    "auto" times the first four at the first question and becomes the fastest; the timing is not counted.

    Args:
        model: the caller's.
        task: reads its output.
        precision: of all passes that do not ask for float32; as an attribute, after the first, what they ran in.
        batch_size: inputs computed at once; halved when memory runs out.
        draws: passes whose mean stands for one answer; for models that draw at random.
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

    def each(self, count: int, work: Callable[[slice], tuple[Tensor, ...]]) -> list[Tensor]:
        """``work`` over full batches of ``count`` rows, its results joined; an empty list when there are no rows.

        When memory runs out the batch is halved, for the rest of this call of the attack, and the user is told.
        """
        results, start = [], 0
        while start < count:
            stop = min(start + self.batch_size, count)
            try:
                results.append(work(slice(start, stop)))
            except RuntimeError as error:
                if not out_of_memory(error) or stop - start == 1:
                    raise
            else:
                start = stop
                continue
            self.batch_size = max(1, (stop - start) // 2)
            log.warning("out of memory: the compute batch is halved to %d inputs", self.batch_size)
        return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*results, strict=True)]

    def output(self, x: Tensor, precision: Precision | None = None) -> Tensor:
        """(N, C) the model's output, the mean of all draws; with a gradient where gradients are on and draws are 1."""
        precision = precision or self.precision
        outputs = [self._made(precision, partial(self._run, x, precision)) for _ in range(self.draws)]
        return outputs[0] if self.draws == 1 else self.task.mean(outputs)

    def gradient(
        self, x: Tensor, value: Value, direction: Value | None, precision: Precision | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output, (N,) value and its gradient with respect to ``x``; with several draws the means over them.

        The value is computed in float64 from the outputs. Where its gradient is so faint that float32 would lose it
        on the way down (a saturated softmax), the row's gradient comes scaled up: directions hold, lengths do not.
        Where it is zero, ``direction`` is followed instead. That also keeps subnormal numbers, which slow a CPU down
        many times, out of the backward pass.

        Raises:
            UserError: when the output does not depend differentiably on the input.
        """
        precision = precision or self.precision

        def drawn() -> tuple[Tensor, ...]:
            start = x.detach().clone().requires_grad_()
            output = self._run(start, precision)
            slope, found = _slope(output, value, direction)
            return output.detach(), found.to(x.dtype), self._back(output, start, slope)

        output, found, grad = self._mean(precision, drawn)
        return output, found, grad

    def gradients(self, x: Tensor, values: Sequence[Value]) -> tuple[Tensor, ...]:
        """Output, and for each value its (N, ...) gradient with respect to ``x``, by a single forward pass a draw.

        Each is what `gradient` would give for that value, from the same draws for all of them.

        Raises:
            UserError: when the output does not depend differentiably on the input.
        """

        def drawn() -> tuple[Tensor, ...]:
            start = x.detach().clone().requires_grad_()
            output = self._run(start, self.precision)
            slopes = [_slope(output, value, None)[0] for value in values]
            last = len(slopes) - 1
            grads = [self._back(output, start, slope, keep=k < last) for k, slope in enumerate(slopes)]
            return output.detach(), *grads

        return self._mean(self.precision, drawn)

    def differences(self, x: Tensor, y: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Output and (N, K, ...) gradients of each logit in ``classes`` (N, K) minus the logit of ``y`` (N,)."""

        def drawn() -> tuple[Tensor, ...]:
            start = x.detach().clone().requires_grad_()
            output = self._run(start, self.precision)
            columns = []
            for k in range(classes.shape[1]):
                slope = torch.zeros_like(output).scatter_(1, y[:, None], -1.0)
                slope.scatter_add_(1, classes[:, k : k + 1], torch.ones_like(slope[:, :1]))
                columns.append(self._back(output, start, slope, keep=k < classes.shape[1] - 1))
            return output.detach(), torch.stack(columns, 1)

        output, grads = self._mean(self.precision, drawn)
        return output, grads

    def choose(self, x: Tensor, *, gradient: bool) -> None:
        """Settle "auto": time one gradient, or one forward pass, of the first inputs in each precision."""
        if self.precision != "auto":
            return
        x, seconds = x[: min(self.batch_size, _TIMED)], dict[Precision, float]()
        names: list[Precision] = ["fp32", "bf16", "folded", "twin"] if x.dtype == torch.float32 and len(x) else ["fp32"]
        for precision in (name for name in names if not (self.exact and name in _EXACT)):
            if precision in ("folded", "twin") and self._twin(precision, x[: self.batch_size]) is None:
                continue
            for _ in range(3):
                start = perf_counter()
                with torch.set_grad_enabled(gradient):
                    (result,) = self.each(len(x), partial(self._timed, x, gradient, precision))
                result.sum().item()
                seconds[precision] = min(seconds.get(precision, torch.inf), perf_counter() - start)
            if self._used(precision) != precision:  # it could not run, and another one was timed
                del seconds[precision]
        self.precision = min(seconds, key=lambda name: seconds[name])
        told = ", ".join(f"{name} {time:.4f} s" for name, time in seconds.items())
        log.info("search precision: %s; %s a batch of %d", self.precision, told, len(x))

    def _timed(self, x: Tensor, gradient: bool, precision: Precision, part: slice) -> tuple[Tensor]:
        def once() -> Tensor:
            start = x[part].detach().clone().requires_grad_(gradient)
            output = self._run(start, precision)
            return self._back(output, start, torch.ones_like(output)) if gradient else output

        return (self._made(precision, once),)

    def _mean(self, precision: Precision, drawn: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Of an output and what goes with it, over all draws."""
        found = [self._made(precision, drawn) for _ in range(self.draws)]
        if self.draws == 1:
            return found[0]
        outputs, *others = zip(*found, strict=True)
        return self.task.mean(outputs), *(torch.stack(parts).mean(0) for parts in others)

    def _made(self, precision: Precision, work: Callable[[], T]) -> T:
        """What ``work`` returns; where a pass raises, it works again with less that is unusual, as long as there is."""
        while True:
            try:
                return work()
            except Exception as error:
                if isinstance(error, UserError) or out_of_memory(error) or not self._relax(precision):
                    raise
                log.info("a pass in %s is made again in the next plainer way: %s", precision, told(error))

    def _relax(self, precision: Precision) -> bool:
        """Give up what a network may not be made for: channels last, the copy, bf16; False where nothing is left."""
        twin = self._twins.get(precision)
        if twin is not None:
            if not twin.relax():
                self._twins[precision] = None
        elif self._used(precision) != "bf16":
            return False
        elif self._channels_last:
            self._channels_last = False
        else:
            self._bf16 = False
        return True

    def _used(self, precision: Precision) -> Precision:
        """What runs where ``precision`` was asked for, as far as is known by now."""
        if precision in ("folded", "twin", "compiled"):
            if self._twins.get(precision) is not None:
                return precision
            precision = "fp32" if precision == "folded" else "bf16"
        return "fp32" if precision == "bf16" and not self._bf16 else precision

    def _run(self, x: Tensor, precision: Precision) -> Tensor:
        twin = self._twin(precision, x) if precision in ("folded", "twin", "compiled") else None
        if twin is not None:
            return self.task.read(twin(x))
        used = "fp32" if x.dtype != torch.float32 else self._used(precision)
        self.precision = used if self.precision == precision else self.precision  # told is what ran
        if used != "bf16":
            return self.task.read(self.model(x))
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            if x.dim() == 4 and self._channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            return self.task.read(self.model(x))

    def _twin(self, precision: Precision, x: Tensor) -> Twin | Compiled | None:
        if precision not in self._twins:
            self._twins[precision] = self._copied(precision, x)
        twin = self._twins[precision]
        if twin is not None and precision in self._stale:
            twin.refill(cast(nn.Module, self.model))
            self._stale.discard(precision)
        return twin

    def _copied(self, precision: Precision, x: Tensor) -> Twin | Compiled | None:
        try:
            if not isinstance(self.model, nn.Module):
                raise NoTwinError("it is no torch module")
            if self.draws > 1:
                raise NoTwinError("it draws at random")
            twin = Twin(self.model, x.detach()[:8], bf16=precision != "folded")
        except Exception as reason:
            if isinstance(reason, UserError) or out_of_memory(reason):
                raise
            log.info("no %s copy of the model: %s", precision, told(reason))
            return None
        return Compiled(twin, self.batch_size) if precision == "compiled" else twin

    def _back(self, output: Tensor, start: Tensor, slope: Tensor, keep: bool = False) -> Tensor:
        if not output.requires_grad:
            raise UserError("the model's output has no gradient: use an attack that needs none, or a transfer attack")
        (grad,) = torch.autograd.grad(output, start, slope.to(output.dtype), allow_unused=True, retain_graph=keep)
        if grad is None:
            raise UserError("the model's output does not depend on its input through differentiable operations")
        return torch.nan_to_num(grad, nan=0.0).contiguous()


class Compiled:
    """A compiled twin, always called with one batch size: another shape would be compiled, or captured, anew."""

    def __init__(self, twin: Twin, batch_size: int) -> None:
        self.batch_size, self.refill, self.relax = batch_size, twin.refill, twin.relax
        self.run = torch.compile(twin, dynamic=False)
        self.graphs = torch.compile(twin, dynamic=False, mode="reduce-overhead")

    def __call__(self, x: Tensor) -> Any:
        """The twin's output; fewer inputs than a batch are filled up with copies of the first."""
        count = len(x)
        if count > self.batch_size:
            return torch.cat([self(part) for part in torch.split(x, self.batch_size)])
        padded = torch.cat([x, x[:1].expand(self.batch_size - count, *x.shape[1:])]) if count < self.batch_size else x
        if x.device.type != "cuda":
            return self.run(padded)[:count]
        cast(Any, torch.compiler).cudagraph_mark_step_begin()
        return self.graphs(padded)[:count].clone()  # the graph's own memory is written again by the next pass


def _slope(output: Tensor, value: Value, direction: Value | None) -> tuple[Tensor, Tensor]:
    """The value's slope at the output, faint rows scaled up, and the value."""
    ends = output.detach().double().requires_grad_()
    found = value(ends)
    if not found.requires_grad:
        raise UserError("the loss does not depend on the model's output through differentiable operations")
    (slope,) = torch.autograd.grad(found.sum(), ends)
    size = slope.flatten(1).abs().amax(1)
    gone = size == 0
    if direction is not None and bool(gone.any()):
        (slope_there,) = torch.autograd.grad(direction(ends).sum(), ends)
        slope = torch.where(per_row(gone, slope), slope_there, slope)
    faint = (size < _FAINT) & (size > 0)
    exponent = torch.where(faint, size.clamp(min=1e-300).log2().floor(), 0)
    slope = slope * per_row(torch.exp2(-exponent), slope)
    return torch.where(slope.abs() < 2.0**-100, 0, slope), found.detach()
