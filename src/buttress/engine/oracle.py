"""The model as an attack sees it: outputs, losses and gradients for a batch of inputs, counted input by input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from buttress import losses
from buttress.engine.ledger import Inside as Inside
from buttress.engine.ledger import Ledger, Rows
from buttress.engine.ledger import Search as Search
from buttress.engine.ledger import Stage as Stage
from buttress.engine.runner import Precision, Runner
from buttress.engine.twin import out_of_memory
from buttress.errors import NoGradientError
from buttress.model_call import call_model
from buttress.threat import per_row

# Of the output (M, C) for some inputs: values (M,), and slopes (M, C) to be led back to the inputs.
Ends = Callable[[Tensor, Rows], tuple[list[Tensor], list[Tensor]]]
_NO_GRADIENT = "the model's output has no gradient: use an attack that needs none, or a transfer attack"
_NO_PATH = "the model's output does not depend on its input through differentiable operations"


class Oracle:
    """Answers an attack's questions about a model: `Runner` says how the model runs, `Ledger` for which inputs.

    Only the inputs still `alive` that do not rest (see `rest`) are computed, gathered into full batches; answers read 0
    for the others. With ``search="first"`` an input leaves once an adversarial point has been confirmed in float32 by
    the model itself; with "full" all stay, and so they do where an answer is a mean over draws.

    It is about inputs ``x`` (N, ...), their truth ``y`` and perhaps a ``target`` (N,). For ``search``, ``inside`` and
    ``read_every`` see `Ledger`; its tensors of each input and its ``stages`` are the oracle's attributes, too.
    """

    def __init__(
        self,
        runner: Runner,
        x: Tensor,
        y: Tensor,
        target: Tensor | None = None,
        *,
        search: Search = "full",
        inside: Inside | None = None,
        read_every: int = 1,
    ) -> None:
        self.runner, self.task, self.x, self.y, self.target = runner, runner.task, x, y, target
        self.search, self.inside, self.read_every = search, inside, read_every
        self.ledger = ledger = Ledger(x, search, inside, read_every)
        self.alive, self.resting, self.success = ledger.alive, ledger.resting, ledger.success
        self.forwards, self.backwards, self.stages = ledger.forwards, ledger.backwards, ledger.stages
        self._loss = self.task.resolve(self.task.loss)
        self._clean: Tensor | None = None
        self._empty: Tensor | None = None  # (0, C), the answer where no input is asked about
        self._checked = False

    def loss_and_grad(
        self, x: Tensor, loss: losses.LossLike | None = None, toward: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N,) loss at ``x``, to be maximised, and its gradient with respect to ``x``; see `Loss.slope`.

        Args:
            x: (N, ...) points.
            loss: the task's own unless given.
            toward: (N,) classes to be led to. With these, or with a target of the attack, it is the loss's targeted
                form, or minus the loss of that class where it has none.
        """
        spec = self._loss if loss is None else self.task.resolve(loss)

        def ends(output: Tensor, rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
            value, slope = spec.slope(output, *self._truth(spec, rows, toward))
            return [value.to(x.dtype)], [slope]

        answer = self._ask(x, ends, slopes=1, clean=spec.against == "clean")
        return (answer[1], answer[2]) if answer else (x.new_zeros(len(x)), torch.zeros_like(x))

    def _ask(self, x: Tensor, ends: Ends | None = None, slopes: int = 0, clean: bool = False) -> list[Tensor]:
        """One question about the inputs computed now: output, values and gradients, (N, ...) each; [] for no input."""
        rows = self.ledger.rows
        points = x if rows is None else x[rows]
        if clean:
            _ = self.clean  # computed here, outside of the gradient's graph
        if not len(points):
            return []
        if self.runner.precision == "auto":
            self.settle_precision(gradient=slopes > 0)
        answer = self.answers(points, rows, ends, slopes)
        chosen = slice(None) if rows is None else rows
        target = None if self.target is None else self.target[chosen]
        success = self.task.is_adversarial(answer[0], self.y[chosen], target)
        self._empty = answer[0][:0]
        if self.ledger.note(points, answer[0], success, proof=self.runner.draws == 1):
            self._read()
        if rows is None:
            return answer
        return [part.new_zeros(len(x), *part.shape[1:]).index_copy_(0, rows, part) for part in answer]

    def answers(
        self, points: Tensor, rows: Tensor | None, ends: Ends | None, slopes: int, precision: Precision | None = None
    ) -> list[Tensor]:
        """What `_pass` gives for (M, ...) points of these inputs, counted, in batches halved when memory runs out."""
        runner, start, results = self.runner, 0, list[tuple[Tensor, ...]]()
        while start < len(points):
            part = slice(start, min(start + runner.batch_size, len(points)))
            index = part if rows is None else rows[part]
            try:
                draws = [self._pass(points[part], index, ends, precision) for _ in range(runner.draws)]
            except RuntimeError as error:
                if not out_of_memory(error) or part.stop - start == 1:
                    raise
                runner.halve(part.stop - start)
                continue
            self.ledger.count(index, runner.draws, runner.draws * slopes)
            results.append(draws[0] if runner.draws == 1 else runner.mean(draws))
            start = part.stop
        return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*results, strict=True)]

    def _pass(self, x: Tensor, rows: Rows, ends: Ends | None, precision: Precision | None) -> tuple[Tensor, ...]:
        """The model's output for these inputs; with ``ends`` its values, and its slopes led back to ``x``.

        Where something raises, the pass is made again in the next plainer way, as long as `Runner.relax` knows one.
        """
        while True:
            used = precision or self.runner.precision
            model = self.runner.model
            forward = partial(call_model, model) if used == "fp32" else partial(self.runner.run, precision=used)
            try:
                with torch.set_grad_enabled(ends is not None):
                    start = x if ends is None else x.detach().requires_grad_()
                    output = self.task.read(forward(start))
                if not self._checked:
                    self._check(output, rows)
                if ends is None:
                    return (output,)
                values, slopes = ends(output, rows)
                if not output.requires_grad:
                    raise NoGradientError(_NO_GRADIENT)
                grads = list[Tensor]()
                for slope in slopes:
                    more, slope = len(grads) < len(slopes) - 1, slope.to(output.dtype)
                    (grad,) = torch.autograd.grad(output, start, slope, retain_graph=more, allow_unused=True)
                    if grad is None:
                        raise NoGradientError(_NO_PATH)
                    grads.append(torch.nan_to_num(grad, nan=0.0).contiguous())
                return output.detach(), *values, *grads
            except Exception as error:
                if not self.runner.relax(error, used):
                    raise

    def _truth(self, spec: losses.Loss, rows: Rows, toward: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What a loss of these inputs is against: the truth or the clean output, and the target if there is one."""
        goal = self.target if toward is None else toward
        return (self.y if spec.against == "label" else self.clean)[rows], None if goal is None else goal[rows]

    @property
    def clean(self) -> Tensor:
        """(N, C) the output for the unperturbed inputs, in float32, computed once."""
        if self._clean is None:
            self._clean = self._float32(self.x, None)
        return self._clean

    def logits(self, x: Tensor) -> Tensor:
        """(N, C) the model's output, without a gradient."""
        answer = self._ask(x)
        return answer[0] if answer else self.ledger.whole(self._nothing())

    def loss(self, x: Tensor, loss: losses.LossLike | None = None, toward: Tensor | None = None) -> Tensor:
        """(N,) the loss to be maximised at ``x``: the task's own unless ``loss`` is given; see `loss_and_grad`."""
        rows = self.ledger.rows  # those asked about: some may leave with the answer
        return self._loss_of(self.logits(x), rows, loss, toward).to(x.dtype)

    def _loss_of(
        self, output: Tensor, rows: Tensor | None, loss: losses.LossLike | None, toward: Tensor | None
    ) -> Tensor:
        """(N,) of outputs (N, C) of which those at ``rows`` were asked for; 0 for the others."""
        spec = self._loss if loss is None else self.task.resolve(loss)
        value = spec.value(output.double(), *self._truth(spec, slice(None), toward))
        return value if rows is None else torch.zeros_like(value).index_copy(0, rows, value[rows])

    def gradients(self, x: Tensor, wanted: Iterable[losses.LossLike]) -> tuple[Tensor, ...]:
        """(N, ...) gradients at ``x`` of several losses, as from `loss_and_grad`, by a single forward pass."""
        specs = [replace(self.task.resolve(loss), direction=None) for loss in wanted]

        def ends(output: Tensor, rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
            return [], [spec.slope(output, *self._truth(spec, rows, None))[1] for spec in specs]

        answer = self._ask(x, ends, slopes=len(specs), clean=any(spec.against == "clean" for spec in specs))
        return tuple(answer[1:]) if answer else tuple(torch.zeros_like(x) for _ in specs)

    def differences(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) output, and (N, K, ...) gradients of each logit in ``classes`` (N, K) minus the true class's logit."""

        def ends(output: Tensor, rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
            true = torch.zeros_like(output).scatter_(1, self.y[rows][:, None], -1.0)
            one = torch.ones_like(output[:, :1])
            return [], [true.scatter_add(1, column[:, None], one) for column in classes[rows].unbind(1)]

        answer = self._ask(x, ends, slopes=classes.shape[1])
        if not answer:
            return self.ledger.whole(self._nothing()), x.new_zeros(len(x), classes.shape[1], *x.shape[1:])
        return answer[0], torch.stack(answer[1:], 1)

    @property
    def done(self) -> bool:
        """Whether a question would be about no input: each has left, or rests."""
        return self.ledger.rows is not None and not len(self.ledger.rows)

    @property
    def together(self) -> bool:
        """Whether it is a full search on a model in train mode: BatchNorm asks for a batch that stays whole."""
        return self.search == "full" and self.runner.trains

    def settle_precision(self, *, gradient: bool) -> None:
        """Make "auto" the fastest precision for gradients, or for outputs alone; the timing is not counted."""
        rows, before = self.ledger.take(torch.arange(len(self.x), device=self.x.device)), self.forwards.clone()
        ones = _ones if gradient else None
        self.runner.settle(self.x[rows], lambda x, name: self.answers(x, rows[: len(x)], ones, 0, name)[-1])
        self.forwards.copy_(before)

    def rest(self, rows: Tensor) -> None:
        """Ask no more about these inputs, (N,) bool, until the next call, whose ``rows`` replace them; see `wake`.

        For inputs that are finished by themselves. They stay `alive` and `settle` computes them; meanwhile answers read
        0 for them, and `success` keeps its last value. Where the batch must stay whole (`together`) they are asked
        about, and counted, until all of them rest. An attack wakes the inputs before it returns.
        """
        self.resting.copy_(rows)
        self.ledger.select(self.together)

    def wake(self) -> None:
        """Let no input rest."""
        if bool(self.resting.any()):
            self.rest(torch.zeros_like(self.resting))

    def drop_wrong(self) -> None:
        """Let the inputs leave that are misclassified unperturbed; for ``search="first"``."""
        wrong = self.task.is_adversarial(self.clean, self.y, self.target).nonzero().squeeze(1)
        self.ledger.leave(wrong, self.x[wrong], self.clean[wrong], self.together)

    def settle(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """The points to return (``x_adv``, or an earlier success) and the float32 outputs there; all inputs wake."""
        self._read()
        self.wake()
        rows, points = self.ledger.rows, self.ledger.take(x_adv)
        if rows is None:
            return x_adv, self._float32(points, None)
        output = self.ledger.output.clone()
        if len(points):
            output[rows] = self._float32(points, rows)
        return torch.where(per_row(self.alive, x_adv), x_adv, self.ledger.point), output

    def only(self, rows: Tensor, *, inside: Inside | None = None, search: Search = "first") -> Oracle:
        """An oracle for some of the inputs, (M,) indices; `merge` brings back what it learnt."""
        own = self.x[rows], self.y[rows], None if self.target is None else self.target[rows]
        part = Oracle(self.runner, *own, search=search, inside=inside, read_every=self.read_every)
        part._clean, part._checked = self.clean[rows], True
        return part

    def merge(self, part: Oracle, rows: Tensor, points: Tensor, output: Tensor, name: str) -> Tensor:
        """Take over the counts of a part made by `only`; (M,) bool, which of its settled points are adversarial."""
        self.success[rows] = success = self.task.is_adversarial(output, part.y, part.target)
        self.ledger.add(part.ledger, rows)
        self.ledger.add_stage(Stage.of(name, part.ledger, success))
        if self.search == "first":
            self.ledger.leave(rows[success], points[success], output[success], self.together)
        return success

    def _read(self) -> None:
        """Let the inputs with a success leave; one seen in another precision than float32 is confirmed before."""
        index = (self.ledger.unread & self.alive).nonzero().squeeze(1)
        self.ledger.unread.zero_()
        if not len(index):
            return
        points, output = self.ledger.point[index], self.ledger.output[index]
        if self.runner.precision != "fp32":
            output = self._float32(points, index)
            target = None if self.target is None else self.target[index]
            self.success[index] = success = self.task.is_adversarial(output, self.y[index], target)
            index, points, output = index[success], points[success], output[success]
        self.ledger.leave(index, points, output, self.together)

    def _float32(self, points: Tensor, rows: Tensor | None) -> Tensor:
        """(M, C) the model's own output at the points of these inputs, in float32."""
        return self.answers(points, rows, None, 0, "fp32")[0]

    def _check(self, output: Tensor, rows: Rows) -> None:
        """Refuse, at the first pass, an output that is none for this task."""
        for y in (self.y, self.target):
            if y is not None:
                self.task.check(output, y[rows])
        self._checked = True

    def _nothing(self) -> Tensor:
        return self.clean[:0] if self._empty is None else self._empty


def _ones(output: Tensor, rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
    return [], [torch.ones_like(output)]
