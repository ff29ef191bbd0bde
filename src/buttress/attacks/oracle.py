"""The model as an attack sees it: outputs, losses and gradients for a batch of inputs, counted input by input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from buttress import losses
from buttress.attacks.passes import Passes
from buttress.errors import UserError
from buttress.threat import per_row

Search = Literal["full", "first"]
Inside = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stage:
    """What one part of a composed attack did: inputs it was given, inputs it beat, passes spent on all of them."""

    name: str
    entered: int
    beaten: int
    forwards: int
    backwards: int

    def __add__(self, other: Stage) -> Stage:
        """Both together, under this one's name."""
        mine, theirs = vars(self), vars(other)
        return replace(self, **{key: mine[key] + theirs[key] for key in mine if key != "name"})


class Oracle:
    """Answers an attack's questions about a model, and keeps the books.

    Only the inputs still `alive` that do not rest (see `rest`) are computed, gathered into full batches; for the others
    outputs, losses and gradients read 0. With ``search="first"`` an input leaves once a point that beats the model has
    been confirmed in float32 by the caller's own model; with "full" all stay, and so they do where an answer is a mean
    over draws.

    Attributes:
        x: (N, ...) the unperturbed inputs.
        y: (N,) the truth.
        target: (N,) the class wanted by a targeted attack, or None.
        alive: (N,) bool, the inputs that still take part.
        resting: (N,) bool, the inputs that `rest`; they stay alive.
        beaten: (N,) bool, whether the last point asked about beat the model, as the search's precision saw it.
        forwards: (N,) int64, forward passes spent on each input; ``backwards`` likewise.
        stages: what each part of a composed attack did, in order.
    """

    def __init__(
        self,
        passes: Passes,
        x: Tensor,
        y: Tensor,
        target: Tensor | None = None,
        *,
        search: Search = "full",
        inside: Inside | None = None,
        read_every: int = 1,
    ) -> None:
        """An oracle for these inputs.

        Args:
            passes: runs the model.
            x: (N, ...) inputs.
            y: (N,) the truth.
            target: (N,) classes wanted, or None.
            search: "full" or "first".
            inside: (x_adv, x) -> (N,) bool, which points count as found, for attacks that look outside the threat.
            read_every: questions after which the flags of found points are read from the device.
        """
        self.passes, self.task, self.x, self.y, self.target = passes, passes.task, x, y, target
        self.search, self.inside, self.read_every = search, inside, read_every
        self.alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.resting, self.beaten = torch.zeros_like(self.alive), torch.zeros_like(self.alive)
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.stages: dict[str, Stage] = {}
        self._rows: Tensor | None = None  # the rows computed now; None means all
        self._found = x.clone()  # where a point beat the model: the point, and the output there
        self._found_output: Tensor | None = None
        self._waiting = torch.zeros_like(self.alive)  # found, not read yet
        self._asked = 0
        self._clean: Tensor | None = None
        self._none: Tensor | None = None  # (0, C), the answer where nobody is asked about
        self._checked = False

    @property
    def done(self) -> bool:
        """Whether a question would be about no input: each has left, or rests."""
        return self._rows is not None and not len(self._rows)

    @property
    def together(self) -> bool:
        """Whether it is a full search on a model in train mode: BatchNorm asks for a batch that stays whole."""
        model = self.passes.model
        return self.search == "full" and isinstance(model, nn.Module) and any(m.training for m in model.modules())

    def rest(self, rows: Tensor) -> None:
        """Ask no more about these inputs, (N,) bool, until the next call, whose ``rows`` replace them; see `wake`.

        For inputs that are finished by themselves, so that neither cost nor time depends on the others of the batch.
        They stay `alive` and `settle` computes them; meanwhile outputs, losses and gradients read 0 for them, and
        `beaten` keeps its last value, which says nothing of later points. Where the batch must stay whole (`together`)
        they are asked about, and counted, until all of them rest. An attack wakes the inputs before it returns.
        """
        self.resting = rows.clone()
        self._select()

    def wake(self) -> None:
        """Let no input rest."""
        if bool(self.resting.any()):
            self.rest(torch.zeros_like(self.resting))

    @property
    def clean(self) -> Tensor:
        """(N, C) the output for the unperturbed inputs, in float32, computed once."""
        if self._clean is None:
            (self._clean,) = self.passes.each(len(self.x), lambda part: (self._forward(self.x[part], part, "fp32"),))
        return self._clean

    def drop_wrong(self) -> None:
        """Let the inputs go that beat the model unperturbed; for ``search="first"``."""
        self._found_output = self.clean.clone()
        self._waiting = self.task.beaten(self.clean, self.y, self.target)
        self._read(confirmed=True)

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

    # -- parts of the inputs ---------------------------------------------------------------------------------------

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

    def merge(self, part: Oracle, rows: Tensor, points: Tensor, output: Tensor, name: str) -> Tensor:
        """Take over a part's counts, and (M,) bool which of its points beat the model; those leave a first search.

        Args:
            part: made by `only` for the same rows.
            rows: (M,) indices.
            points: (M, ...) inside the threat, settled, with their float32 ``output``.
            output: (M, C).
            name: of the stage.
        """
        won = self.task.beaten(output, part.y, part.target)
        self.forwards[rows] += part.forwards
        self.backwards[rows] += part.backwards
        spent = int(part.forwards.sum()), int(part.backwards.sum())
        stage = Stage(name, len(rows), int(won.sum()), *spent)
        self.stages[name] = self.stages[name] + stage if name in self.stages else stage
        self.beaten[rows] = won
        if self.search == "first":
            if self._found_output is None:
                self._found_output = self.clean.clone()
            self._found[rows[won]], self._found_output[rows[won]] = points[won], output[won]
            self._waiting[rows[won]] = True
            self._read(confirmed=True)
        return won

    # -- books -----------------------------------------------------------------------------------------------------

    def _select(self) -> None:
        """Settle which rows are computed."""
        rows = (self.alive & ~self.resting).nonzero().squeeze(1)
        whole = len(rows) == len(self.x) or (len(rows) > 0 and self.together)
        self._rows = None if whole else rows

    def _points(self, x: Tensor, *, gradient: bool) -> Tensor:
        """The points to compute, the search's precision being settled by the first there are."""
        points = self._take(x)
        if len(points):
            self.passes.choose(self._take(self.x), gradient=gradient)
        return points

    def _nothing(self) -> Tensor:
        return self.clean[:0] if self._none is None else self._none

    def _take(self, values: Tensor) -> Tensor:
        return values if self._rows is None else values[self._rows]

    def _index(self, part: slice) -> Tensor | slice:
        return part if self._rows is None else self._rows[part]

    def _scatter(self, part: Tensor) -> Tensor:
        if self._rows is None:
            return part
        whole = part.new_zeros(len(self.x), *part.shape[1:])
        whole[self._rows] = part
        return whole

    def _look(self, output: Tensor, rows: Tensor | slice) -> None:
        """Refuse, at the first pass, an output that is none for this task."""
        if not self._checked:
            self.task.check(output, self.y[rows])
            if self.target is not None:
                self.task.check(output, self.target[rows])
            self._checked = True

    def _count(self, rows: Tensor | slice, backwards: int = 0) -> None:
        self.forwards[rows] += self.passes.draws
        if backwards:
            self.backwards[rows] += backwards * self.passes.draws

    def _forward(self, points: Tensor, rows: Tensor | slice, precision: Literal["fp32"] | None = None) -> Tensor:
        with torch.no_grad():
            output = self.passes.output(points, precision)
        self._look(output, rows)
        self._count(rows)
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

    def _note(self, points: Tensor, output: Tensor) -> None:
        """Mark the rows whose output beats the model; every so many questions the marks are read."""
        if not len(output):
            return
        self._none = output[:0]
        y, target = self._take(self.y), None if self.target is None else self._take(self.target)
        won = self.task.beaten(output, y, target)
        rows: Tensor | slice = slice(None) if self._rows is None else self._rows
        self.beaten[rows] = won
        if self.search == "full" or self.passes.draws > 1:  # one set of draws is no proof: those search on
            return
        if self.inside is not None:
            won = won & self.inside(points, self._take(self.x))
        if self._found_output is None:
            self._found_output = output.new_zeros(len(self.x), *output.shape[1:])
        new = won & ~self._waiting[rows]
        if self.read_every == 1:
            index = torch.arange(len(self.x), device=new.device)[rows][new]
            self._found[index], self._found_output[index] = points[new], output[new]
        else:  # no index, so nothing is read from the device
            self._found[rows] = torch.where(per_row(new, points), points, self._found[rows])
            self._found_output[rows] = torch.where(per_row(new, output), output, self._found_output[rows])
        self._waiting[rows] |= won
        self._asked += 1
        if self._asked % self.read_every == 0:
            self._read()

    def _read(self, confirmed: bool = False) -> None:
        """Let the marked rows go; what another precision than float32 said is asked again."""
        if self.search == "full":
            return
        index = (self._waiting & self.alive).nonzero().squeeze(1)
        self._waiting.zero_()
        if len(index) and not confirmed and self.passes.precision != "fp32":
            points = self._found[index]
            (output,) = self.passes.each(len(index), lambda part: (self._forward(points[part], index[part], "fp32"),))
            sure = self.task.beaten(output, self.y[index], None if self.target is None else self.target[index])
            self.beaten[index] = sure
            index, output = index[sure], output[sure]
            assert self._found_output is not None
            self._found_output[index] = output
        if len(index):
            self.alive[index] = False
            self._select()
