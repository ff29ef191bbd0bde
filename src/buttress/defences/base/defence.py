"""The interface of all training methods: a step's objective, its cost, and hooks before, during and after training."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from buttress import registry, tasks
from buttress.attacks import Perturbation
from buttress.defences.base.step_context import Batch as Batch
from buttress.defences.base.step_context import Pass as Pass
from buttress.defences.base.step_context import StepContext as StepContext
from buttress.engine.threat_resolution import resolved_settings
from buttress.tasks import Task, check_task
from buttress.threat import NOT_GIVEN, Threat

if TYPE_CHECKING:
    from buttress.data.dataset import Dataset


@dataclass(frozen=True)
class Loss:
    """A step's objective: a scalar to be minimised, and named figures for the log."""

    value: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """Passes over the network, forward and backward alike, for each input whenever it is trained on.

    Attributes:
        crafting: passes that make the inputs to train on.
        training: passes that give the gradient of the weights; 2 in standard training.
        objectives: how often the objective is evaluated in that.
    """

    crafting: float
    training: float = 2.0
    objectives: int = 1

    @property
    def relative(self) -> float:
        """All passes, as a multiple of those of standard training."""
        return (self.crafting + self.training) / 2


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch, as `Defence.end_epoch` sees it.

    Attributes:
        model: with the weights of the epoch's last step; it must be left as it is.
        data: what is trained on, as `Defence.prepare` returned it.
        number: epochs done, from 1.
        epochs: of the whole training.
        seed: of this moment.
        figures: this epoch's row of the history; what is added to it is logged.
    """

    model: nn.Module
    data: Dataset
    number: int
    epochs: int
    seed: int
    figures: dict[str, float]


class Step(Protocol):
    """What a training step can do; given to `Defence.step` by the trainer."""

    batch: Batch
    model: nn.Module
    optimizer: torch.optim.Optimizer
    context: StepContext

    def loss(self) -> Loss:
        """The defence's objective for this batch."""
        ...

    def backward(self, loss: Loss) -> None:
        """Add the gradients of a loss to those of this update."""
        ...

    def gradients(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """The gradients of a loss for these parameters, with no part in this update; None where it has none."""
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
    exported model; state that is no weight is kept in buffers.

    Attributes:
        paper: where the method was published, in a few words.
        preparation: what `prepare` trains with default settings, in a few words; `cost` does not count that.
        cost_hangs_on: where `cost` is None before the data are known: what of them it hangs on, with default settings.
        clean_pass: whether its loss makes a clean pass (`StepContext.clean`), which a wrapper need not add then.
        perturbed_pass: whether each of its objectives makes a perturbed pass (`StepContext.adversarial`), without which
            there is nothing to set against a clean one.
        paired: whether its clean and its perturbed pass show the same inputs in the same order, so that activations of
            the two can be compared row by row.
        own_classes: whether the logits of its passes are judged by the batch's classes alone, as they are not where
            inputs are mixed.
        keeps_inputs: whether it keeps inputs, or networks trained on them, from before training; these mean nothing
            once the embedding that the inputs are values of has moved.
        needs_classes: whether it is for classes only, as a method is unless it says otherwise by a plain attribute or a
            property; see `buttress.tasks.check_task`.
        without_classes: what to use for a task that has none.
        task: what the model's output is for; set by the trainer before anything else.
        rises: its settings that are epochs over which something rises to what was asked for, such as a warm-up.
        begins: its settings that are epochs before it, or what they are about, has any effect.
        reconstruction: what of it is our own design because the source leaves it open or could not be read; empty where
            it is the published method.
    """

    paper: ClassVar[str] = ""
    rises: ClassVar[tuple[str, ...]] = ()
    begins: ClassVar[tuple[str, ...]] = ()
    reconstruction: ClassVar[str] = ""
    without_classes: ClassVar[str] = "at, trades, free, gaussian or standard"

    task: Task = tasks.classification

    _threat: Threat = NOT_GIVEN

    @property
    def threat(self) -> Threat:
        """What the attacker may do, for methods with a ``threat`` of their own: the usual one where none was given."""
        return Threat() if self._threat is NOT_GIVEN else self._threat

    @threat.setter
    def threat(self, threat: Threat) -> None:
        self._threat = threat

    # Properties, so that a method can say otherwise by a plain attribute, or for each instance by a property.
    @property
    def preparation(self) -> str:
        """See `Defence`."""
        return ""

    @property
    def cost_hangs_on(self) -> str:
        """See `Defence`."""
        return ""

    @property
    def clean_pass(self) -> bool:
        """See `Defence`."""
        return False

    @property
    def perturbed_pass(self) -> bool:
        """See `Defence`."""
        return True

    @property
    def paired(self) -> bool:
        """See `Defence`."""
        return True

    @property
    def own_classes(self) -> bool:
        """See `Defence`."""
        return True

    @property
    def keeps_inputs(self) -> bool:
        """See `Defence`."""
        return False

    @property
    def needs_classes(self) -> bool:
        """See `Defence`."""
        return True

    def for_task(self, task: Task) -> None:
        """Set the ``task`` of this method and of those inside.

        Raises:
            UserError: for one that needs classes where the task has none, naming it.
        """
        check_task(self, task)
        for method in self.modules():
            if isinstance(method, Defence):
                method.task = task

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Once before training; returns the data to train on."""
        return data

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The objective of one step; passes that train go through ``context.clean`` and ``context.adversarial``."""

    def step(self, step: Step) -> None:
        """One batch: by default one objective and one update. Methods with several updates a batch say otherwise."""
        step.update(step.loss())

    @property
    def attack(self) -> Perturbation | None:
        """The attack that training uses, from which the trainer takes the threat to validate under."""
        return None

    @property
    def attacks_in_steps(self) -> bool:
        """Whether its steps attack, rather than its preparation alone: they craft, or make perturbed passes."""
        cost = self.cost
        return self.attack is not None and (self.perturbed_pass or cost is None or cost.crafting > 0)

    def end_epoch(self, epoch: Epoch) -> None:
        """After each epoch, before its weights are judged: update what the method remembers."""

    def finish(self, model: nn.Module, data: Dataset, seed: int) -> None:
        """Once after training, on the weights that are kept: what the method does to the finished model, in place."""

    def save(self, folder: Path) -> None:
        """What the method leaves in a run's folder beside the weights, once they are written: nothing by default."""

    @property
    def cost(self) -> Cost | None:
        """Passes that an input costs whenever it is trained on; None where it is not known."""
        return None

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, which every defence keeps under their own names."""
        parameters = list(inspect.signature(type(self).__init__).parameters.values())[1:]
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return {name: self._threat if name == "threat" else getattr(self, name) for name in names}

    def within(self, threat: Threat | None = None, usual: Threat = Threat()) -> Self:
        """A fresh copy with every threat filled in that was not given; see `resolve_threats`."""
        defaults = {p.name: p.default for p in inspect.signature(type(self).__init__).parameters.values()}
        settings = self.settings()
        return type(self)(**settings | resolved_settings(settings, defaults, threat, usual))

    def label(self) -> str:
        """Its registered name (a user's own: the class's), with the methods inside: "awp(eps-warmup(at))"."""
        name = registry.defence.name_of(self).rpartition(":")[2]
        inside = [value.label() for value in self.settings().values() if isinstance(value, Defence)]
        return f"{name}({', '.join(inside)})" if inside else name
