"""The model as an attack sees it: outputs, losses and gradients for a batch of inputs, counted input by input."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor

from buttress import losses
from buttress.attacks.borrow import Model
from buttress.errors import UserError
from buttress.tasks import Task
from buttress.threat import per_row

Precision = Literal["fp32", "bf16", "auto"]
Search = Literal["full", "first"]
Rows = Tensor | slice
log = logging.getLogger(__name__)

# Below this a row's loss gradient is handed on scaled up: its true size would be lost in float32 further down.
_FAINT = 2.0**-40
_EVERY = slice(None)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class Oracle:
    """Answers an attack's questions about a model, and keeps the books.

    Only the inputs still `alive` are computed, gathered into full batches of at most ``batch_size``; for the others
    losses and gradients read 0. With ``search="first"`` an input leaves once a point that beats the model has been
    confirmed in float32; with "full" all stay.

    Attributes:
        y: (N,) the truth.
        target: (N,) the class wanted by a targeted attack, or None.
        alive: (N,) bool, the inputs that still take part.
        beaten: (N,) bool, whether the last point asked about beat the model, as the search's precision saw it.
        forwards: (N,) int64, forward passes spent on each input; ``backwards`` likewise.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        *,
        search: Search,
        precision: Precision,
        batch_size: int | None,
    ) -> None:
        self.model, self.task, self.x, self.y, self.target = model, task, x, y, target
        self.search, self.precision, self.batch_size = search, precision, batch_size or max(len(x), 1)
        self.alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.beaten = torch.zeros_like(self.alive)
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self._found = x.clone()  # for inputs that have left: the point that beat the model, and the output there
        self._found_output: Tensor | None = None
        self._clean: Tensor | None = None
        self._checked = False

    @property
    def done(self) -> bool:
        """Whether no input is left."""
        return self.search == "first" and not bool(self.alive.any())

    @property
    def clean(self) -> Tensor:
        """(N, C) the output for the unperturbed inputs, computed once."""
        if self._clean is None:
            (self._clean,) = self._each(_EVERY, lambda rows: (self._forward(self.x, rows, "fp32"),))
        return self._clean

    def drop_wrong(self) -> None:
        """Let the inputs go that beat the model unperturbed; for ``search="first"``."""
        self._retire(self.x, self.clean, _EVERY, confirmed=True)

    def logits(self, x: Tensor) -> Tensor:
        """(N, C) the model's output, without a gradient."""
        rows = self._rows()
        (output,) = self._each(rows, lambda part: (self._forward(x, part, self.precision),)) or (self.clean[:0],)
        self._retire(x, output, rows)
        return self._scatter(output, rows)

    def loss(self, x: Tensor, loss: losses.LossLike | None = None) -> Tensor:
        """(N,) the loss to be maximised at ``x``: the task's own unless ``loss`` is given; minus it when targeted."""
        output = self.logits(x)
        spec = losses.resolve(loss or self.task.loss)
        with torch.no_grad():
            return torch.where(self.alive, self._value(output.double(), _EVERY, spec), 0).to(x.dtype)

    def loss_and_grad(self, x: Tensor, loss: losses.LossLike | None = None) -> tuple[Tensor, Tensor]:
        """(N,) loss at ``x`` as in `loss`, and its gradient with respect to ``x``.

        The loss is computed in float64 from the outputs. Where its gradient is so faint that float32 would lose it on
        the way down (a saturated softmax), the row's gradient comes scaled up: directions hold, lengths do not. That
        also keeps subnormal numbers, which slow a CPU down many times, out of the backward pass.

        Raises:
            UserError: when the output does not depend differentiably on the input.
        """
        spec = losses.resolve(loss or self.task.loss)
        if spec.against == "clean":
            _ = self.clean  # computed here, outside of the gradient's graph
        rows = self._rows()
        if self.precision == "auto":
            self.precision = self._faster(x, spec)
        results = self._each(rows, lambda part: self._gradient(x, part, spec, self.precision))
        if not results:
            return torch.zeros(len(x), dtype=x.dtype, device=x.device), torch.zeros_like(x)
        output, value, grad = results
        self._retire(x, output, rows)
        return self._scatter(value, rows), self._scatter(grad, rows)

    def settle(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """The points to return (``x_adv``, or what beat the model early) and the float32 outputs there."""
        rows = self._rows()
        results = self._each(rows, lambda part: (self._forward(x_adv, part, "fp32"),))
        if self._found_output is None:
            return x_adv, results[0]
        output = self._found_output.clone()
        if results:
            output[rows] = results[0]
        return torch.where(per_row(self.alive, x_adv), x_adv, self._found), output

    # -- batches ---------------------------------------------------------------------------------------------------

    def _rows(self) -> Rows:
        return self.alive.nonzero().squeeze(1) if self.search == "first" else _EVERY

    def _scatter(self, part: Tensor, rows: Rows) -> Tensor:
        if isinstance(rows, slice):
            return part
        whole = part.new_zeros(len(self.x), *part.shape[1:])
        whole[rows] = part
        return whole

    def _each(self, rows: Rows, work: Callable[[Rows], tuple[Tensor, ...]]) -> list[Tensor]:
        """``work`` over full batches of ``rows``, its results joined; an empty list when there are no rows.

        When memory runs out the batch is halved, for the rest of this call of the attack, and the user is told.
        """
        count = len(self.x) if isinstance(rows, slice) else len(rows)
        results, start = [], 0
        while start < count:
            stop = min(start + self.batch_size, count)
            try:
                results.append(work(slice(start, stop) if isinstance(rows, slice) else rows[start:stop]))
            except RuntimeError as error:
                if not _out_of_memory(error) or stop - start == 1:
                    raise
            else:
                start = stop
                continue
            self.batch_size = max(1, (stop - start) // 2)
            log.warning("out of memory: the compute batch is halved to %d inputs", self.batch_size)
        self._checked = self._checked or count > 0
        return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*results, strict=True)]

    # -- passes ----------------------------------------------------------------------------------------------------

    def _run(self, x: Tensor, rows: Rows, precision: Precision) -> Tensor:
        bf16 = precision == "bf16" and x.dtype == torch.float32
        if bf16 and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            output = self.task.read(self.model(x))
        if not self._checked:
            self.task.check(output, self.y[rows])
            if self.target is not None:
                self.task.check(output, self.target[rows])
        self.forwards[rows] += 1
        return output

    def _forward(self, x: Tensor, rows: Rows, precision: Precision) -> Tensor:
        with torch.no_grad():
            return self._run(x[rows], rows, precision)

    def _gradient(self, x: Tensor, rows: Rows, spec: losses.Loss, precision: Precision) -> tuple[Tensor, ...]:
        x_part = x[rows].detach().clone().requires_grad_()
        output = self._run(x_part, rows, precision)
        if not output.requires_grad:
            raise UserError("the model's output has no gradient: use an attack that needs none, or a transfer attack")
        ends = output.detach().double().requires_grad_()
        value = self._value(ends, rows, spec)
        (slope,) = torch.autograd.grad(value.sum(), ends)
        size = slope.flatten(1).abs().amax(1)
        gone = size == 0
        if spec.direction is not None and bool(gone.any()):
            (slope_there,) = torch.autograd.grad(self._value(ends, rows, losses.Loss(spec.direction)).sum(), ends)
            slope = torch.where(per_row(gone, slope), slope_there, slope)
        faint = (size < _FAINT) & (size > 0)
        exponent = torch.where(faint, size.clamp(min=1e-300).log2().floor(), 0)
        slope = slope * per_row(torch.exp2(-exponent), slope)
        slope = torch.where(slope.abs() < 2.0**-100, 0, slope).to(output.dtype)
        (grad,) = torch.autograd.grad(output, x_part, slope, allow_unused=True)
        if grad is None:
            raise UserError("the model's output does not depend on its input through differentiable operations")
        self.backwards[rows] += 1
        return output.detach(), value.detach().to(x.dtype), torch.nan_to_num(grad, nan=0.0).contiguous()

    def _value(self, output: Tensor, rows: Rows, spec: losses.Loss) -> Tensor:
        if spec.against == "clean":
            return spec.function(output, self.clean[rows].double())
        if self.target is not None:
            return -spec.function(output, self.target[rows])
        y = self.y[rows]
        return spec.function(output, y.double() if y.is_floating_point() else y)

    def _faster(self, x: Tensor, spec: losses.Loss) -> Precision:
        """Time one gradient of one full batch in float32 and in bf16 autocast, each after a warm-up."""
        rows = self.alive.nonzero().squeeze(1)[: self.batch_size]
        if x.dtype != torch.float32 or not len(rows):
            return "fp32"
        seconds = {}
        for precision in ("fp32", "bf16"):
            for _ in range(2):
                start = perf_counter()
                work = partial(self._gradient, x, spec=spec, precision=precision)
                self._each(rows, work)[2].sum().item()
                seconds[precision] = perf_counter() - start
        log.info("search precision: fp32 %.4f s, bf16 %.4f s a batch", seconds["fp32"], seconds["bf16"])
        return "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"

    def _retire(self, x: Tensor, output: Tensor, rows: Rows, confirmed: bool = False) -> None:
        """Let the rows go whose output beats the model; what a bf16 pass says is confirmed in float32 first."""
        if not len(output):
            return
        target = None if self.target is None else self.target[rows]
        beaten = self.task.beaten(output, self.y[rows], target)
        self.beaten[rows] = beaten
        index = torch.arange(len(self.x), device=x.device)[rows][beaten]
        if self.search == "full" or not len(index):
            return
        won = output[beaten]
        if self.precision != "fp32" and not confirmed:
            (won,) = self._each(index, lambda part: (self._forward(x, part, "fp32"),))
            sure = self.task.beaten(won, self.y[index], None if self.target is None else self.target[index])
            self.beaten[index] = sure
            index, won = index[sure], won[sure]
        if self._found_output is None:
            self._found_output = won.new_zeros(len(self.x), *won.shape[1:])
        self._found_output[index] = won
        self._found[index] = x[index]
        self.alive[index] = False
