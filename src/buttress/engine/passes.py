"""How the model answers a question: passes through it, means over draws, and slopes that are led back to the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from buttress.engine.ledger import Ledger, Rows
from buttress.engine.pass_watch import passed
from buttress.engine.runner import Precision, Runner
from buttress.errors import NoGradientError, UserError
from buttress.model_call import call_model

# Leads a slope (M, C) at the output back to the points (M, ...); the bool says whether the graph is needed once more.
Pull = Callable[[Tensor, bool], Tensor]
# Of the output (M, C) for the inputs at these rows: the answers to a question, (M, ...) each.
Ends = Callable[[Tensor, Rows, Pull], tuple[Tensor, ...]]
# A pass whose graph is alive: the output (M, C), and the way back to the points.
Opened = tuple[Tensor, Pull]

_NO_GRADIENT = "the model's output has no gradient: use an attack that needs none, or a transfer attack"
_REENTRANT = (
    "the network uses reentrant activation checkpoints, which lead no gradient back to a given point: call checkpoint "
    "with use_reentrant=False, or switch checkpointing off"
)
_NO_PATH = "the model's output does not depend on its input through differentiable operations"


def led_back(output: Tensor, start: Tensor, slope: Tensor, more: bool) -> Tensor:
    """(M, ...) the gradient at ``start`` of the sum of ``slope`` times ``output``, 0 where it is not a number.

    Args:
        output: (M, C) what a pass made of ``start``.
        start: (M, ...) points, a leaf.
        slope: (M, C).
        more: keep the graph for another slope.

    Raises:
        NoGradientError: where there is no way back.
    """
    if not output.requires_grad:
        raise NoGradientError(_NO_GRADIENT)
    try:
        (grad,) = torch.autograd.grad(output, start, slope.to(output.dtype), retain_graph=more, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise NoGradientError(_REENTRANT) from None
    if grad is None:
        raise NoGradientError(_NO_PATH)
    return torch.nan_to_num(grad, nan=0.0).contiguous()


class Passes:
    """How the model answers one question about some inputs: `Runner` says in which way and in which batches.

    Attributes:
        runner: of the model; ``task`` reads its output.
        ledger: where passes are counted.
        x: (N, ...) the unperturbed inputs, their truth ``y`` and perhaps a ``target`` (N,).
    """

    def __init__(self, runner: Runner, ledger: Ledger, x: Tensor, y: Tensor, target: Tensor | None) -> None:
        self.runner, self.task, self.ledger = runner, runner.task, ledger
        self.x, self.y, self.target = x, y, target
        self._clean: Tensor | None = None
        self._checked = False

    @property
    def clean(self) -> Tensor:
        """(N, C) the output for the unperturbed inputs, in float32, computed once."""
        if self._clean is None:
            self._clean = self._float32(self.x, None)
        return self._clean

    def settle_precision(self, *, gradient: bool) -> None:
        """Make "auto" the fastest precision for gradients, or for outputs alone; the timing is not counted."""
        rows, before = self.ledger.take(torch.arange(len(self.x), device=self.x.device)), self.ledger.forwards.clone()
        ends = _ones if gradient else None

        def timed(x: Tensor, name: Precision) -> Tensor:
            question = partial(self._mean, ends, 0, precision=name)
            return self.runner.in_batches(x, rows[: len(x)], question)[-1]

        self.runner.settle(self.x[rows], timed)
        self.ledger.forwards.copy_(before)

    def _mean(
        self, ends: Ends | None, slopes: int, x: Tensor, rows: Rows, precision: Precision | None = None
    ) -> tuple[Tensor, ...]:
        """The mean over the draws of the output and of what ``ends`` makes of it; counted, with so many backwards."""

        def once(draw: int | None, used: Precision) -> tuple[Tensor, ...]:
            output, pull = self._open(x, rows, used, draw, gradient=ends is not None)
            return (output,) if ends is None else (output.detach(), *ends(output, rows, pull))

        draws = [self._tried(partial(once, draw), precision) for draw in self._draws(precision)]
        self._count(rows, len(draws), len(draws) * slopes, draws[0][0])
        return draws[0] if len(draws) == 1 else self.runner.mean(draws)

    def _count(self, rows: Rows, forwards: int, backwards: int, output: Tensor) -> None:
        """Passes of these inputs, whose output (M, C) is that."""
        self.ledger.count(rows, forwards, backwards)
        standing = len(self.x) if self.ledger.rows is None else len(self.ledger.rows)
        passed(forwards, len(output), standing, output[0].numel() if len(output) else 0)

    def _tried(
        self, attempt: Callable[[Precision], tuple[Tensor, ...]], precision: Precision | None = None
    ) -> tuple[Tensor, ...]:
        """What an attempt in a precision makes, the runner's unless given; where it raises, in the next plainer way."""
        while True:
            used = precision or self.runner.precision
            try:
                return attempt(used)
            except Exception as error:
                if not self._relax(error, used):
                    raise

    def _relax(self, error: Exception, precision: Precision) -> bool:
        """Whether there is a plainer way, as long as `Runner.relax` knows one."""
        return self.runner.relax(error, precision)

    def _draws(self, precision: Precision | None) -> Sequence[int | None]:
        """What tells the passes apart whose mean is an answer; they run in the runner's precision unless given."""
        return range(self.runner.draws)

    def _open(self, x: Tensor, rows: Rows, precision: Precision, draw: int | None, *, gradient: bool) -> Opened:
        """One pass: the output (M, C) for (M, ...) points, and the way back while its graph is alive."""
        model = self.runner.model
        forward = partial(call_model, model) if precision == "fp32" else partial(self.runner.run, precision=precision)
        with torch.set_grad_enabled(gradient):
            start = x.detach().requires_grad_() if gradient else x
            output = self.task.read(forward(start))
        if not self._checked:
            self._check(output, rows)
        return output, partial(led_back, output, start)

    def _target(self, rows: Rows) -> Tensor | None:
        return None if self.target is None else self.target[rows]

    def _verdict(self, output: Tensor, rows: Rows | None) -> Tensor:
        """(M,) bool: whether these outputs (M, C) of the inputs at these rows are what the attacker wants."""
        index = slice(None) if rows is None else rows
        return self.task.is_adversarial(output, self.y[index], self._target(index))

    def _float32(self, points: Tensor, rows: Tensor | None) -> Tensor:
        """(M, C) the model's own output at the points of these inputs, in float32."""
        return self.runner.in_batches(points, rows, partial(self._mean, None, 0, precision="fp32"))[0]

    def _check(self, output: Tensor, rows: Rows) -> None:
        """Refuse, at the first pass, an output that is none for this task."""
        self.task.check(output, self.y[rows])
        if self.target is not None:
            try:
                self.task.check(output, self.target[rows])
            except UserError as refusal:
                raise UserError(f"target: {refusal}") from None
        self._checked = True


def _ones(output: Tensor, rows: Rows, pull: Pull) -> tuple[Tensor, ...]:
    return (pull(torch.ones_like(output), False),)
