"""What all audits share: the network and the data they ask about, and the examples that have been crafted already."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.attacks import Attacked, Perturbation
from buttress.attacks.base import joined
from buttress.attacks.borrow import borrowed
from buttress.attacks.oracle import Search
from buttress.attacks.passes import Precision
from buttress.audits.finding import Finding
from buttress.data.base import Split
from buttress.errors import UserError
from buttress.models import forward_checked
from buttress.random import Random
from buttress.registry import attack as registered_attacks
from buttress.tasks import Task

Data = Split | Iterable[tuple[Tensor, Tensor]]
_GROUP = 1024  # inputs attacked together; their compute batches stay full while inputs drop out


@dataclass(frozen=True)
class Timed:
    """An attack's outcome for all inputs, and the seconds that it took."""

    outcome: Attacked
    seconds: float


@dataclass
class Subject:
    """One network under audit, and the inputs it is asked about.

    Attributes:
        model: the network.
        x: (N, ...) float32 inputs.
        y: (N,) classes.
        ids: (N,) what identifies each input.
        classes: names of the classes, or their numbers.
        seed: of all attacks.
        precision: of the attacks' search; verdicts are float32.
        batch_size: inputs computed at once.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    task: Task = tasks.classification
    seed: int = 0
    precision: Precision = "fp32"
    batch_size: int = 256
    store: dict[tuple[str, ...], Timed] = field(default_factory=dict)
    watch: Callable[[str, float], None] | None = None
    _logits: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """(N, C) outputs for the unperturbed inputs, computed once."""
        if self._logits is None:
            output = self.output(self.x)
            self.task.check(output, self.y)
            self._logits = output
        return self._logits

    def output(self, x: Tensor) -> Tensor:
        """(N, C) outputs for ``x``, in float32 and in eval mode."""
        with borrowed(self.model, "eval", self.seed, x.device), torch.no_grad():
            parts = [self.task.read(forward_checked(self.model, part)) for part in torch.split(x, self.batch_size)]
            return torch.cat(parts)

    def attacked(self, attack: Perturbation, search: Search = "full") -> Timed:
        """Every input under ``attack``; from the store where that has been done before."""
        # Not the precision: "auto" becomes what it chose, and what was crafted before that stays good.
        key = (attack.fingerprint(), str(self.seed), search, digest(self.model), _digest(self.ids))
        if key not in self.store:
            self.store[key] = self._attack(attack, search)
        return self.store[key]

    def _attack(self, attack: Perturbation, search: Search) -> Timed:
        parts, start = [], time.perf_counter()
        for begin in range(0, len(self.x), _GROUP):
            rows = slice(begin, begin + _GROUP)
            settings: dict[str, Any] = {"search": search, "precision": self.precision, "batch_size": self.batch_size}
            x, y, ids = self.x[rows], self.y[rows], self.ids[rows]
            parts.append(attack(self.model, x, y, task=self.task, seed=self.seed, ids=ids, **settings))
            if self.precision == "auto" and int(parts[-1].backwards.sum()):  # timed: the choice holds for this audit
                self.precision = parts[-1].precision
            if self.watch is not None:
                self.watch(describe(attack), min(1.0, (begin + _GROUP) / len(self.x)))
        return Timed(joined(parts), time.perf_counter() - start)


@dataclass(frozen=True)
class Stored(Perturbation):
    """A perturbation whose points have been crafted already: looks them up by input id."""

    ids: Tensor
    x_adv: Tensor

    def perturb(self, oracle: Any, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The stored points of these inputs."""
        order = self.ids.argsort()
        return self.x_adv[order[torch.searchsorted(self.ids[order], random.ids)]]


class Audit(ABC):
    """A question put to a trained network: a frozen dataclass of plain fields, answering with a `Finding`."""

    @abstractmethod
    def ask(self, subject: Subject) -> Finding:
        """Answer for this network; crafted examples come from ``subject.attacked``."""


def digest(model: nn.Module) -> str:
    """What tells two networks apart: their class and all weights and buffers."""
    found = hashlib.sha256(type(model).__qualname__.encode())
    for name, value in model.state_dict().items():
        found.update(name.encode() + _digest(value).encode())
    return found.hexdigest()


def same_inputs(subject: Subject) -> str:
    """What is equal for audits of the same inputs in the same order: a short digest of ids, labels and values."""
    return hashlib.sha256("".join(map(_digest, (subject.ids, subject.y, subject.x))).encode()).hexdigest()[:16]


def _digest(value: object) -> str:
    if not isinstance(value, Tensor):  # what a module keeps as extra state
        return repr(value)
    return hashlib.sha256(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def describe(attack: Perturbation) -> str:
    """A perturbation in a few words: "PGD-20", "PGD-40 x 5", "gaussian"."""
    _, users, name = registered_attacks.name_of(attack).rpartition(":")
    if getattr(attack, "threat", None) is None:
        return name
    name = name if users else name.upper()
    steps, restarts = getattr(attack, "steps", None), getattr(attack, "restarts", 1)
    loss = getattr(attack, "loss", None)
    text = name + (f"-{steps}" if steps is not None else "") + (f" x {restarts}" if restarts > 1 else "")
    return text + (f" ({loss})" if isinstance(loss, str) and loss != "cross_entropy" else "")


def subject(
    model: nn.Module,
    data: Data,
    *,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    precision: Precision = "fp32",
    batch_size: int = 256,
    watch: Callable[[str, float], None] | None = None,
) -> Subject:
    """Gather a network and its inputs, on the network's device.

    Raises:
        UserError: when there are no inputs.
    """
    if isinstance(data, Split):
        split = data.stratified(limit, seed) if limit is not None else data
        x, y, ids = split.take(torch.arange(len(split)))
    else:
        batches = list(data)
        if not batches:
            raise UserError("an audit needs at least one input; the data is empty")
        x, y = (
            torch.cat([torch.as_tensor(part) for part in parts]) for parts in zip(*map(_pair, batches), strict=True)
        )
        y = y if y.is_floating_point() else y.long()
        ids = torch.arange(len(y))
        if limit is not None and limit < len(y):
            split = Split(x, y, ids).stratified(limit, seed)
            x, y, ids = split.x, split.y, split.ids
    if not len(y):
        raise UserError("an audit needs at least one input; the data is empty")
    device = next((p.device for p in model.parameters()), x.device)
    names = tuple(classes) if classes is not None else tuple(str(c) for c in range(int(y.max()) + 1))
    if batch_size < 1:
        raise UserError(f"batch_size must be 1 or more; got {batch_size}")
    settings: dict[str, Any] = {"seed": seed, "precision": precision, "batch_size": batch_size, "watch": watch}
    return Subject(model, x.to(device), y.to(device), ids.to(device), names, **settings)


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, list | tuple) or len(batch) < 2:
        raise UserError(f"data are batches of (inputs, labels); got a {type(batch).__name__}")
    return batch[0], batch[1]


def run(
    model: nn.Module,
    data: Data,
    audits: Sequence[Audit],
    **settings: Any,
) -> list[Finding]:
    """Put each audit to ``model``; examples crafted for one serve the others.

    Args:
        model: the network; it comes back as it was.
        data: a split of a data set, or any iterable of (x, y) batches.
        audits: what to ask.
        **settings: as in `subject`: limit, classes, seed, precision, batch_size, watch.
    """
    about = subject(model, data, **settings)
    return [audit.ask(about) for audit in audits]
