"""The model as an attack sees it: outputs, losses and gradients for a batch of inputs, counted input by input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from buttress import losses
from buttress.engine.faces import Distance as Distance
from buttress.engine.faces import nearest
from buttress.engine.ledger import Inside as Inside
from buttress.engine.ledger import Ledger, Rows
from buttress.engine.ledger import Search as Search
from buttress.engine.ledger import Stage as Stage
from buttress.engine.passes import Opened, Passes, Pull
from buttress.engine.runner import Precision, Question, Runner
from buttress.threat import per_row


class Oracle(Passes):
    """Answers an attack's questions about a model: `Passes` computes what `Ledger` says that it is about.

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
        self.ledger = ledger = Ledger(x, search, inside, read_every)
        super().__init__(runner, ledger, x, y, target)
        self.search, self.inside, self.read_every = search, inside, read_every
        self.alive, self.resting, self.success = ledger.alive, ledger.resting, ledger.success
        self.forwards, self.backwards, self.stages = ledger.forwards, ledger.backwards, ledger.stages
        self._loss = self.task.resolve(self.task.loss)
        self._empty: Tensor | None = None  # (0, C), the answer where no input is asked about

    def loss_and_grad(
        self, x: Tensor, loss: losses.LossLike | None = None, toward: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N,) loss at ``x``, to be maximised, and its gradient with respect to ``x``; see `Loss.slope`.

        Args:
            x: (N, ...) points.
            loss: the task's own unless given.
            toward: (N,) classes that the attack itself chose to lead to, which go before a target of the attacker's.
        """
        spec = self._loss if loss is None else self.task.resolve(loss)

        def ends(output: Tensor, rows: Rows, pull: Pull) -> tuple[Tensor, ...]:
            value, slope = spec.slope(output, *self._truth(spec, rows, toward))
            return value.to(x.dtype), pull(slope, False)

        answer = self._ask(x, partial(self._mean, ends, 1), gradient=True, clean=spec.against == "clean")
        return (answer[1], answer[2]) if answer else (x.new_zeros(len(x)), torch.zeros_like(x))

    def _ask(self, x: Tensor, question: Question, *, gradient: bool = False, clean: bool = False) -> list[Tensor]:
        """One question about the inputs computed now: output and answers, (N, ...) each; [] for no input."""
        rows = self.ledger.rows
        points = x if rows is None else x[rows]
        if clean:
            _ = self.clean  # computed here, outside of the gradient's graph
        if not len(points):
            return []
        if self.runner.precision == "auto":
            self.settle_precision(gradient=gradient)
        answer = self.runner.in_batches(points, rows, question)
        self._empty = answer[0][:0]
        if self.ledger.note(points, answer[0], self._verdict(answer[0], rows), proof=self.runner.draws == 1):
            self._read()
        if rows is None:
            return answer
        return [part.new_zeros(len(x), *part.shape[1:]).index_copy_(0, rows, part) for part in answer]

    def _truth(
        self, spec: losses.Loss, rows: Rows, toward: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What a loss of these inputs is against: the truth or the clean output; the target, and the class chosen."""
        truth = (self.y if spec.against == "label" else self.clean)[rows]
        return truth, self._target(rows), None if toward is None else toward[rows]

    def logits(self, x: Tensor) -> Tensor:
        """(N, C) the model's output, without a gradient."""
        answer = self._ask(x, partial(self._mean, None, 0))
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

        def ends(output: Tensor, rows: Rows, pull: Pull) -> tuple[Tensor, ...]:
            slopes = [spec.slope(output, *self._truth(spec, rows, None))[1] for spec in specs]
            return tuple(pull(slope, k + 1 < len(slopes)) for k, slope in enumerate(slopes))

        clean = any(spec.against == "clean" for spec in specs)
        answer = self._ask(x, partial(self._mean, ends, len(specs)), gradient=True, clean=clean)
        return tuple(answer[1:]) if answer else tuple(torch.zeros_like(x) for _ in specs)

    def nearest_face(self, x: Tensor, classes: Tensor, distance: Distance, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """The nearest face of the decision region of the truth y, linearised at ``x``, as `faces.nearest` finds it.

        Its memory is that of the batch computed at once. A mean over draws is taken before faces are compared, so the
        graphs of all draws are held.

        Args:
            x: (N, ...) points.
            classes: (N, K) the rivals k of the faces ``share`` z_k - z_y = 0.
            distance: how far a face is; `success` is known by then.
            share: of a rival's logit.

        Returns:
            (N,) float64, the value of ``share`` z_k - z_y there, and (N, ...) its gradient.
        """

        def question(points: Tensor, rows: Rows) -> tuple[Tensor, ...]:
            def compared(used: Precision) -> tuple[Tensor, ...]:
                opened = self._open_all(points, rows, used)
                own, seen = self._joint_output([output.detach() for output, _ in opened], rows)
                pulls, far = [pull for _, pull in opened], partial(distance, rows)
                value, grad = nearest(points, seen, pulls, self.y[rows], classes[rows], share, far)
                self._count(rows, len(opened), len(opened) * classes.shape[1], own)
                return own, value, grad

            return self._tried(compared)

        answer = self._ask(x, question, gradient=True)
        return (answer[1], answer[2]) if answer else (x.new_zeros(len(x), dtype=torch.float64), torch.zeros_like(x))

    def _open_all(self, x: Tensor, rows: Rows, precision: Precision) -> list[Opened]:
        """The passes whose mean gradients `nearest_face` compares, all at once."""
        return [self._open(x, rows, precision, draw, gradient=True) for draw in self._draws(None)]

    def _joint_output(self, outputs: list[Tensor], rows: Rows) -> tuple[Tensor, Tensor]:
        """(M, C) what their outputs say of success, which is noted, and the logits that faces are made of."""
        mean = outputs[0] if len(outputs) == 1 else self.task.mean(outputs)
        self.success[rows] = self._verdict(mean, rows)
        return mean, mean

    @property
    def done(self) -> bool:
        """Whether a question would be about no input: each has left, or rests."""
        return self.ledger.rows is not None and not len(self.ledger.rows)

    @property
    def together(self) -> bool:
        """Whether it is a full search on a model in train mode: BatchNorm asks for a batch that stays whole."""
        return self.search == "full" and self.runner.trains

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
        wrong = self._verdict(self.clean, None).nonzero().squeeze(1)
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
        part = Oracle(
            self.runner,
            self.x[rows],
            self.y[rows],
            self._target(rows),
            search=search,
            inside=inside,
            read_every=self.read_every,
        )
        part._clean, part._checked = self.clean[rows], True
        return part

    def merge(self, part: Oracle, rows: Tensor, points: Tensor, output: Tensor, name: str) -> Tensor:
        """Take over the counts of a part made by `only`; (M,) bool, which of its settled points are adversarial."""
        self.success[rows] = success = self._verdict(output, rows)
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
            self.success[index] = success = self._verdict(output, index)
            index, points, output = index[success], points[success], output[success]
        self.ledger.leave(index, points, output, self.together)

    def _nothing(self) -> Tensor:
        return self.clean[:0] if self._empty is None else self._empty
