"""Which inputs an attack still searches, where it succeeded, and what was spent on each input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from buttress.threat import per_row

Search = Literal["full", "first"]
Inside = Callable[[Tensor, Tensor], Tensor]
Rows = Tensor | slice


@dataclass(frozen=True)
class Stage:
    """What one part of a composed attack did: inputs that it got, its successes, passes spent on all of them."""

    name: str
    entered: int
    successes: int
    forwards: int
    backwards: int

    def __add__(self, other: Stage) -> Stage:
        """Both together, under this one's name."""
        mine, theirs = vars(self), vars(other)
        return replace(self, **{key: mine[key] + theirs[key] for key in mine if key != "name"})

    @classmethod
    def of(cls, name: str, part: Ledger, success: Tensor) -> Stage:
        """Of a part that searched (M,) inputs, ``success`` (M,) bool saying on which it succeeded."""
        spent = int(part.forwards.sum()), int(part.backwards.sum())
        return cls(name, len(success), int(success.sum()), *spent)

    def facts(self) -> dict[str, str | int]:
        """As findings and files have it, where ``beaten`` counts the successes."""
        return {("beaten" if key == "successes" else key): value for key, value in vars(self).items()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Stage:
        """Back from `facts`."""
        return cls(**{("successes" if key == "beaten" else key): value for key, value in facts.items()})


class Ledger:
    """The state of a search, one entry per input.

    Attributes:
        alive: (N,) bool, the inputs that still take part.
        resting: (N,) bool, the inputs that are set aside for a while; they stay alive.
        rows: indices of the inputs that are computed now; None means all.
        success: (N,) bool, whether the last point asked about was adversarial, as the search's precision saw it.
        point: (N, ...) the first adversarial point of each input that has left; ``output`` (N, C) the output there.
        forwards: (N,) int64, forward passes spent on each input; ``backwards`` likewise.
        unread: (N,) bool, the inputs with a success that has not been read from the device yet.
        stages: what each part of a composed attack did, in order.
        x: (N, ...) the unperturbed inputs.
        search: "full" keeps every input to the end; with "first" an input leaves after its first success.
        inside: (x_adv, x) -> (N,) bool, which points may count as a success, for attacks that ask outside the threat.
        read_every: questions after which successes are read from the device.
    """

    def __init__(self, x: Tensor, search: Search, inside: Inside | None, read_every: int) -> None:
        self.x, self.search, self.inside, self.read_every = x, search, inside, read_every
        self.alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.resting, self.success = torch.zeros_like(self.alive), torch.zeros_like(self.alive)
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.stages: dict[str, Stage] = {}
        self.rows: Tensor | None = None
        self.point, self.output = x.clone(), x.new_zeros(0)
        self.unread = torch.zeros_like(self.alive)
        self._questions = 0

    def share(self, other: Ledger) -> None:
        """Keep the inputs that take part, and the counts, together with another search over the same inputs."""
        self.alive, self.forwards, self.backwards = other.alive, other.forwards, other.backwards

    @property
    def indices(self) -> Rows:
        """Of the inputs that are computed now."""
        return slice(None) if self.rows is None else self.rows

    def take(self, values: Tensor) -> Tensor:
        """The entries of the inputs that are computed now."""
        return values if self.rows is None else values[self.rows]

    def whole(self, part: Tensor) -> Tensor:
        """(N, ...) with the entries of those inputs put in their places, and 0 elsewhere."""
        if self.rows is None:
            return part
        return part.new_zeros(len(self.x), *part.shape[1:]).index_copy_(0, self.rows, part)

    def select(self, together: bool) -> None:
        """Settle which inputs are computed; ``together`` where the batch must stay whole while one is."""
        rows = (self.alive & ~self.resting).nonzero().squeeze(1)
        whole = len(rows) == len(self.x) or (len(rows) > 0 and together)
        self.rows = None if whole else rows

    def count(self, rows: Rows, forwards: int, backwards: int) -> None:
        """Add passes to these inputs."""
        self.forwards[rows] += forwards
        if backwards:
            self.backwards[rows] += backwards

    def add(self, part: Ledger, rows: Tensor) -> None:
        """Add what a search over some of the inputs, (M,) indices, spent."""
        self.forwards[rows] += part.forwards
        self.backwards[rows] += part.backwards

    def add_stage(self, stage: Stage) -> None:
        """Add what a part of a composed attack did; parts of one name are added up."""
        before = self.stages.get(stage.name)
        self.stages[stage.name] = stage if before is None else before + stage

    def note(self, points: Tensor, output: Tensor, success: Tensor, proof: bool) -> bool:
        """Note the answer to one question about the inputs computed now; returns whether successes are due to be read.

        Args:
            points: (M, ...) that were asked about.
            output: (M, C) there.
            success: (M,) bool, which of them are adversarial.
            proof: whether that is enough to let an input leave.
        """
        rows: Rows = slice(None) if self.rows is None else self.rows
        self.success[rows] = success
        if self.search == "full" or not proof:
            return False
        if self.inside is not None:
            success = success & self.inside(points, self.take(self.x))
        if not len(self.output):
            self.output = output.new_zeros(len(self.x), *output.shape[1:])
        new = success & ~self.unread[rows]
        if self.read_every == 1:
            index = torch.arange(len(self.x), device=new.device)[rows][new]
            self.point[index], self.output[index] = points[new], output[new]
        else:  # no index, so nothing is read from the device
            self.point[rows] = torch.where(per_row(new, points), points, self.point[rows])
            self.output[rows] = torch.where(per_row(new, output), output, self.output[rows])
        self.unread[rows] |= success
        self._questions += 1
        return self._questions % self.read_every == 0

    def leave(self, index: Tensor, points: Tensor, output: Tensor, together: bool) -> None:
        """Let these inputs, (M,) indices, leave with (M, ...) adversarial points and float32 outputs (M, C)."""
        if not len(self.output):
            self.output = output.new_zeros(len(self.x), *output.shape[1:])
        self.point[index], self.output[index] = points, output
        if len(index):
            self.alive[index] = False
            self.select(together)
