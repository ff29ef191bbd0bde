"""An attack's books: who takes part, who has been beaten and when that is read, and what was spent on whom."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from buttress.engine.runner import Runner
from buttress.threat import per_row

Search = Literal["full", "first"]
Inside = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stage:
    """What one part of a composed attack did: inputs it was given, inputs it beat, passes spent on all of them."""

    name: str
    entered: int
    successes: int
    forwards: int
    backwards: int

    def __add__(self, other: Stage) -> Stage:
        """Both together, under this one's name."""
        mine, theirs = vars(self), vars(other)
        return replace(self, **{key: mine[key] + theirs[key] for key in mine if key != "name"})

    def facts(self) -> dict[str, str | int]:
        """As findings and files have it, where ``beaten`` counts the successes."""
        return {("beaten" if key == "successes" else key): value for key, value in vars(self).items()}


class Ledger(ABC):
    """What is known of each input while an attack searches; `Oracle` asks the questions.

    Attributes:
        x: (N, ...) the unperturbed inputs.
        y: (N,) the truth.
        target: (N,) the class wanted by a targeted attack, or None.
        alive: (N,) bool, the inputs that still take part.
        resting: (N,) bool, the inputs that `rest`; they stay alive.
        success: (N,) bool, whether the last point asked about beat the model, as the search's precision saw it.
        forwards: (N,) int64, forward passes spent on each input; ``backwards`` likewise.
        stages: what each part of a composed attack did, in order.
    """

    def __init__(
        self,
        passes: Runner,
        x: Tensor,
        y: Tensor,
        target: Tensor | None = None,
        *,
        search: Search = "full",
        inside: Inside | None = None,
        read_every: int = 1,
    ) -> None:
        """Open the books on these inputs.

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
        self.resting, self.success = torch.zeros_like(self.alive), torch.zeros_like(self.alive)
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.stages: dict[str, Stage] = {}
        self._rows: Tensor | None = None  # the rows computed now; None means all
        self._found = x.clone()  # where a point beat the model: the point, and the output there
        self._found_output: Tensor | None = None
        self._waiting = torch.zeros_like(self.alive)  # found, not read yet
        self._asked = 0
        self._none: Tensor | None = None  # (0, C), the answer where nobody is asked about

    @property
    @abstractmethod
    def clean(self) -> Tensor:
        """(N, C) the output for the unperturbed inputs, in float32."""

    @abstractmethod
    def _again(self, points: Tensor, rows: Tensor) -> Tensor:
        """(M, C) float32 outputs at the points of these rows, counted like any other pass."""

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
        `success` keeps its last value, which says nothing of later points. Where the batch must stay whole (`together`)
        they are asked about, and counted, until all of them rest. An attack wakes the inputs before it returns.
        """
        self.resting = rows.clone()
        self._select()

    def wake(self) -> None:
        """Let no input rest."""
        if bool(self.resting.any()):
            self.rest(torch.zeros_like(self.resting))

    def drop_wrong(self) -> None:
        """Let the inputs go that beat the model unperturbed; for ``search="first"``."""
        self._found_output = self.clean.clone()
        self._waiting = self.task.is_adversarial(self.clean, self.y, self.target)
        self._read(confirmed=True)

    def merge(self, part: Ledger, rows: Tensor, points: Tensor, output: Tensor, name: str) -> Tensor:
        """Take over a part's counts, and (M,) bool which of its points beat the model; those leave a first search.

        Args:
            part: made by `Oracle.only` for the same rows.
            rows: (M,) indices.
            points: (M, ...) inside the threat, settled, with their float32 ``output``.
            output: (M, C).
            name: of the stage.
        """
        won = self.task.is_adversarial(output, part.y, part.target)
        self.forwards[rows] += part.forwards
        self.backwards[rows] += part.backwards
        spent = int(part.forwards.sum()), int(part.backwards.sum())
        stage = Stage(name, len(rows), int(won.sum()), *spent)
        self.stages[name] = self.stages[name] + stage if name in self.stages else stage
        self.success[rows] = won
        if self.search == "first":
            if self._found_output is None:
                self._found_output = self.clean.clone()
            self._found[rows[won]], self._found_output[rows[won]] = points[won], output[won]
            self._waiting[rows[won]] = True
            self._read(confirmed=True)
        return won

    def _select(self) -> None:
        """Settle which rows are computed."""
        rows = (self.alive & ~self.resting).nonzero().squeeze(1)
        whole = len(rows) == len(self.x) or (len(rows) > 0 and self.together)
        self._rows = None if whole else rows

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

    def _count(self, rows: Tensor | slice, backwards: int = 0) -> None:
        self.forwards[rows] += self.passes.draws
        if backwards:
            self.backwards[rows] += backwards * self.passes.draws

    def _note(self, points: Tensor, output: Tensor) -> None:
        """Mark the rows whose output beats the model; every so many questions the marks are read."""
        if not len(output):
            return
        self._none = output[:0]
        y, target = self._take(self.y), None if self.target is None else self._take(self.target)
        won = self.task.is_adversarial(output, y, target)
        rows: Tensor | slice = slice(None) if self._rows is None else self._rows
        self.success[rows] = won
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
            output = self._again(points, index)
            sure = self.task.is_adversarial(output, self.y[index], None if self.target is None else self.target[index])
            self.success[index] = sure
            index, output = index[sure], output[sure]
            assert self._found_output is not None
            self._found_output[index] = output
        if len(index):
            self.alive[index] = False
            self._select()
