"""What all training methods share: a step's objective, and the passes that it names."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.borrow import Mode, borrowed
from buttress.attacks.passes import Precision, Twins
from buttress.layers.capture import capture
from buttress.models.normalized import Normalized
from buttress.models.outputs import FromProbabilities, Output
from buttress.random import Random, derive
from buttress.tasks import Classification, Task

if TYPE_CHECKING:
    from buttress.data.base import Dataset

Kind = Literal["clean", "adversarial"]


@dataclass(frozen=True)
class Batch:
    """One batch of training data.

    Attributes:
        x: (N, ...) inputs in their own units.
        y: (N,) int64 classes.
        ids: (N,) int64, which inputs of the data set these are.
    """

    x: Tensor
    y: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Loss:
    """A step's objective: a scalar to be minimised, and named figures for the log."""

    value: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """One pass of a step's objective: its logits, and the activations of the layers that are watched."""

    logits: Tensor
    activations: Mapping[str, Tensor]


class At:
    """Where in training a step is, and the way in which its objective uses the model.

    Attributes:
        index: number of this step, from 0.
        progress: share of the training that is done, in [0, 1].
        epoch: epochs done, as a fraction.
        seed: this step's seed.
        passes: the last clean and the last adversarial pass of this step, for wrappers to read.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        index: int = 0,
        progress: float = 0.0,
        epoch: float = 0.0,
        seed: int = 0,
        precision: Precision = "fp32",
        twins: Twins | None = None,
    ) -> None:
        self.model, self.batch, self.precision, self.twins = model, batch, precision, twins
        self.index, self.progress, self.epoch, self.seed = index, progress, epoch, derive(seed, "step", index)
        self.task: Task = Classification()
        self.passes: dict[Kind, Pass] = {}
        self.auxiliary: list[Tensor] = []
        self._watched: tuple[str, ...] = ()

    @property
    def random(self) -> Random:
        """This step's draws, one stream per input; the same again on each access."""
        return Random(derive(self.seed, "defence"), self.batch.ids)

    def watch(self, layers: Sequence[str]) -> None:
        """Keep the activations of these layers in the passes to come."""
        self._watched = tuple(dict.fromkeys((*self._watched, *layers)))

    def clean(self, x: Tensor) -> Tensor:
        """(N, C) logits of the unperturbed inputs, a pass that trains."""
        return self._pass("clean", x)

    def adversarial(self, x_adv: Tensor) -> Tensor:
        """(N, C) logits of the perturbed inputs, a pass that trains."""
        return self._pass("adversarial", x_adv)

    def craft(self, attack: Perturbation, *, mode: Mode = "eval", target: Tensor | None = None) -> Tensor:
        """This batch perturbed by ``attack``; the model and the random state are left as they were."""
        batch = self.batch
        alike: dict[Precision, Precision] = {"folded": "fp32", "twin": "bf16", "compiled": "bf16"}
        precision = alike.get(self.precision, self.precision) if mode == "train" else self.precision
        return attack.craft(
            self.model,
            batch.x,
            batch.y,
            target=target,
            seed=self.seed,
            ids=batch.ids,
            mode=mode,
            precision=precision,
            twins=self.twins,
        )

    def clean_activations(self) -> Mapping[str, Tensor]:
        """What the watched layers give for the clean batch, from the objective's own clean pass if it made one.

        Otherwise a pass is added that leaves buffers and the random state alone, so that it changes nothing else.
        """
        if "clean" not in self.passes:
            with borrowed(self.model, "train", self.seed, self.batch.x.device):
                self._pass("clean", self.batch.x, keep_auxiliary=False)
        return self.passes["clean"].activations

    def _pass(self, kind: Kind, x: Tensor, keep_auxiliary: bool = True) -> Tensor:
        nothing: AbstractContextManager[dict[str, Tensor]] = nullcontext({})
        with capture(self.model, self._watched) if self._watched else nothing as activations:
            output = self._output(x, keep_auxiliary)
        logits = self.task.read(output)
        self.passes[kind] = Pass(logits, dict(activations))
        return logits

    def _output(self, x: Tensor, keep_auxiliary: bool) -> Any:
        inner = self.model
        while isinstance(inner, Normalized | Output | FromProbabilities):
            inner = inner.model
        labelled = getattr(inner, "forward_with_auxiliary", None)
        if labelled is None:
            return self.model(x)

        def forward(*args: Any) -> Any:
            output, auxiliary = labelled(*args, self.batch.y)
            if keep_auxiliary:
                self.auxiliary.append(auxiliary)
            return output

        # In place of the module's own forward for this one call: wrappers and hooks, capture's too, see a usual pass.
        own = vars(inner).get("forward")
        vars(inner)["forward"] = forward
        try:
            return self.model(x)
        finally:
            del vars(inner)["forward"]
            if own is not None:
                vars(inner)["forward"] = own


class Step(Protocol):
    """What a training step can do; given to `Defence.step` by the trainer."""

    batch: Batch
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def loss(self) -> Loss:
        """The defence's objective for this batch."""
        ...

    def backward(self, loss: Loss) -> None:
        """Add the gradients of a loss to those of this update."""
        ...

    def apply(self) -> None:
        """One step of the optimiser along the gradients so far, which are then dropped."""
        ...

    def update(self, loss: Loss) -> None:
        """`backward` and `apply`."""
        ...


class Defence(nn.Module, ABC):
    """One training method. Most write `loss` only.

    Modules that it owns (a domain head, a generator) are trained, saved and resumed with it, and left out of the
    exported model.
    """

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Once before training; returns the data to train on."""
        return data

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, at: At) -> Loss:
        """The objective of one step; passes that train go through ``at.clean`` and ``at.adversarial``."""

    def step(self, do: Step) -> None:
        """One batch: by default one objective and one update. Methods with several updates a batch say otherwise."""
        do.update(do.loss())

    @property
    def attack(self) -> Perturbation | None:
        """The attack that training uses, from which the trainer takes the threat to validate under."""
        return None

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, which every defence keeps under their own names."""
        parameters = list(inspect.signature(type(self).__init__).parameters.values())[1:]
        return {p.name: getattr(self, p.name) for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
