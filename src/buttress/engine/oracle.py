"""The model as an attack sees it: outputs, losses and gradients for a batch of inputs, counted input by input."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from buttress import losses
from buttress.engine.ledger import Inside as Inside
from buttress.engine.ledger import Ledger
from buttress.engine.ledger import Search as Search
from buttress.engine.ledger import Stage as Stage
from buttress.errors import UserError
from buttress.threat import per_row


class Oracle(Ledger):
    """Answers an attack's questions about a model, and keeps the books (`Ledger`).

    Only the inputs still `alive` that do not rest (see `rest`) are computed, gathered into full batches; for the others
    outputs, losses and gradients read 0. With ``search="first"`` an input leaves once a point that beats the model has
    been confirmed in float32 by the caller's own model; with "full" all stay, and so they do where an answer is a mean
    over draws.
    """

    _clean: Tensor | None = None
    _checked = False

    @property
    def clean(self) -> Tensor:
        """(N, C) the output for the unperturbed inputs, in float32, computed once."""
        if self._clean is None:
            (self._clean,) = self.passes.each(len(self.x), lambda part: (self._forward(self.x[part], part, "fp32"),))
        return self._clean

    def logits(self, x: Tensor) -> Tensor:
        """(N, C) the model's output, without a gradient."""
        points = self._points(x, gradient=False)
        found = self.passes.each(len(points), lambda part: (self._forward(points[part], self._index(part)),))
        output = found[0] if found else self._nothing()
        whole = self._scatter(output)
        self._note(points, output)
        return whole

    def loss(self, x: Tensor, loss: losses.LossLike | None = None, toward: Tensor | None = None) -> Tensor:
        """(N,) the loss to be maximised at ``x``: the task's own unless ``loss`` is given; see `loss_and_grad`."""
        rows = self._rows  # those asked about: the answer may let some of them go
        output = self.logits(x)
        value = self._value(output.double(), slice(None), losses.resolve(loss or self.task.loss), toward).to(x.dtype)
        return value if rows is None else torch.zeros_like(value).index_copy(0, rows, value[rows])

    def loss_and_grad(
        self, x: Tensor, loss: losses.LossLike | None = None, toward: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N,) loss at ``x``, to be maximised, and its gradient with respect to ``x``; see `Passes.gradient`.

        Args:
            x: (N, ...) points.
            loss: the task's own unless given.
            toward: (N,) classes to be led to. With these, or with a target of the attack, it is the loss's targeted
                form, or minus the loss of that class where it has none.

        Raises:
            UserError: when the output does not depend differentiably on the input.
        """
        spec = losses.resolve(loss or self.task.loss)
        if spec.against == "clean":
            _ = self.clean  # computed here, outside of the gradient's graph
        points = self._points(x, gradient=True)

        def work(part: slice) -> tuple[Tensor, ...]:
            rows = self._index(part)
            value = partial(self._value, rows=rows, spec=spec, toward=toward, look=True)
            lasting = None if spec.direction is None else losses.Loss(spec.direction)
            direction = None if lasting is None else partial(self._value, rows=rows, spec=lasting, toward=toward)
            output, *results = self.passes.gradient(points[part], value, direction)
            self._count(rows, backwards=1)
            return output, *results

        results = self.passes.each(len(points), work)
        if not results:
            return torch.zeros(len(x), dtype=x.dtype, device=x.device), torch.zeros_like(x)
        output, value, grad = results
        whole = self._scatter(value), self._scatter(grad)
        self._note(points, output)
        return whole

    def gradients(self, x: Tensor, wanted: Iterable[losses.LossLike]) -> tuple[Tensor, ...]:
        """(N, ...) gradients at ``x`` of several losses, as from `loss_and_grad`, by a single forward pass."""
        specs, points = [losses.resolve(loss) for loss in wanted], self._points(x, gradient=True)

        def work(part: slice) -> tuple[Tensor, ...]:
            rows = self._index(part)
            values = [partial(self._value, rows=rows, spec=spec, toward=None, look=True) for spec in specs]
            results = self.passes.gradients(points[part], values)
            self._count(rows, backwards=len(specs))
            return results

        results = self.passes.each(len(points), work)
        if not results:
            return tuple(torch.zeros_like(x) for _ in specs)
        output, *grads = results
        whole = tuple(self._scatter(grad) for grad in grads)
        self._note(points, output)
        return whole

    def differences(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) output, and (N, K, ...) gradients of each logit in ``classes`` (N, K) minus the true class's logit."""
        points, y, classes = self._points(x, gradient=True), self._take(self.y), self._take(classes)

        def work(part: slice) -> tuple[Tensor, ...]:
            results = self.passes.differences(points[part], y[part], classes[part])
            self._count(self._index(part), backwards=classes.shape[1])
            return results

        results = self.passes.each(len(points), work)
        if not results:
            return self._scatter(self._nothing()), x.new_zeros(len(x), classes.shape[1], *x.shape[1:])
        whole = self._scatter(results[0]), self._scatter(results[1])
        self._note(points, results[0])
        return whole

    def settle(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """The points to return (``x_adv``, or what beat the model early) and the float32 outputs there; all wake."""
        self._read()
        self.wake()
        points = self._take(x_adv)
        results = self.passes.each(len(points), lambda part: (self._forward(points[part], self._index(part), "fp32"),))
        if self._rows is None:
            return x_adv, results[0]
        assert self._found_output is not None
        output = self._found_output.clone()
        if results:
            output[self._rows] = results[0]
        return torch.where(per_row(self.alive, x_adv), x_adv, self._found), output

    def only(self, rows: Tensor, *, inside: Inside | None = None, search: Search = "first") -> Oracle:
        """An oracle for some of the inputs, (M,) indices; `merge` brings back what it learnt."""
        target = None if self.target is None else self.target[rows]
        part = Oracle(
            self.passes,
            self.x[rows],
            self.y[rows],
            target,
            search=search,
            inside=inside,
            read_every=self.read_every,
        )
        part._clean, part._checked = self.clean[rows], True
        return part

    # -- passes ------------------------------------------------------------------------------------------------------

    def _points(self, x: Tensor, *, gradient: bool) -> Tensor:
        """The points to compute, the search's precision being settled by the first there are."""
        points = self._take(x)
        if len(points):
            self.passes.choose(self._take(self.x), gradient=gradient)
        return points

    def _nothing(self) -> Tensor:
        return self.clean[:0] if self._none is None else self._none

    def _look(self, output: Tensor, rows: Tensor | slice) -> None:
        """Refuse, at the first pass, an output that is none for this task."""
        if not self._checked:
            self.task.check(output, self.y[rows])
            if self.target is not None:
                self.task.check(output, self.target[rows])
            self._checked = True

    def _forward(self, points: Tensor, rows: Tensor | slice, precision: Literal["fp32"] | None = None) -> Tensor:
        with torch.no_grad():
            output = self.passes.output(points, precision)
        self._look(output, rows)
        self._count(rows)
        return output

    def _again(self, points: Tensor, rows: Tensor) -> Tensor:
        """The float32 outputs of what another precision saw."""
        (output,) = self.passes.each(len(rows), lambda part: (self._forward(points[part], rows[part], "fp32"),))
        return output

    def _value(
        self, output: Tensor, rows: Tensor | slice, spec: losses.Loss, toward: Tensor | None, look: bool = False
    ) -> Tensor:
        if look:
            self._look(output, rows)
        try:
            value = self._valued(output, rows, spec, toward)
        except RuntimeError:  # a loss with float32 weights of its own
            value = self._valued(output.float(), rows, spec, toward)
        if value.shape != output.shape[:1]:
            told = f"got shape {tuple(value.shape)} for {len(output)} inputs"
            raise UserError(f'a loss gives one value per input, (N,), as with reduction="none"; {told}')
        return value

    def _valued(self, output: Tensor, rows: Tensor | slice, spec: losses.Loss, toward: Tensor | None) -> Tensor:
        if spec.against == "clean":
            return spec.function(output, self.clean[rows].to(output.dtype))
        y, goal = self.y[rows], self.target if toward is None else toward
        if goal is None:
            return spec.function(output, y.to(output.dtype) if y.is_floating_point() else y)
        return -spec.function(output, goal[rows]) if spec.toward is None else spec.toward(output, y, goal[rows])
