"""What all monitors share: what they see, and what they may answer.

Annotations are evaluated here: as texts they would be looked up in the files of subclasses, which need not import them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from buttress import tasks
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch
from buttress.tasks import Task
from buttress.threat import Threat

Snapshot = dict[str, Any]
"""Weights (and their average, where there is one) as tensors and plain values, for an `Action` to go back to."""

Kind = Literal["note", "stop", "rollback"]


@dataclass(frozen=True)
class Action:
    """A monitor's answer.

    Args:
        kind: "note" only reports; "stop" ends the training; "rollback" ends it with the weights of ``snapshot``.
        text: what fired and what follows, one sentence without a full stop.
        snapshot: where a rollback goes back to.
    """

    kind: Kind
    text: str
    snapshot: Snapshot | None = None

    @property
    def ends(self) -> bool:
        """Whether training ends."""
        return self.kind != "note"

    def __post_init__(self) -> None:
        """Refuse a way back to nowhere."""
        if self.kind == "rollback" and self.snapshot is None:
            raise ValueError("a rollback needs a snapshot to go back to")


@dataclass(frozen=True)
class Moment:
    """A moment of a training, as a monitor sees it: after a step, or at the end of an epoch.

    Attributes:
        model: with the present weights, not their average, in eval mode; its buffers, its modes and torch's random
            state are put back afterwards, its weights must be left alone.
        data: what is trained on.
        batch: the last step's batch, augmented as it was trained on.
        threat: of the attack that the defence trains against, or None.
        step: steps done.
        per_epoch: steps of an epoch.
        epoch: the epoch that runs or has just ended, from 1.
        epochs: of the whole training.
        seed: of the training; the same at each moment, so that figures can be compared.
        figures: what is added goes into this epoch's row of the history, which at the end of an epoch it is.
        memory: the monitor's own, empty at first, kept in checkpoints: tensors and plain values under texts.
        snapshot: gives a copy of the present weights, and of their average.
        task: what the model's output is for.
    """

    model: nn.Module
    data: Dataset
    batch: Batch
    threat: Threat | None
    step: int
    per_epoch: int
    epoch: int
    epochs: int
    seed: int
    figures: dict[str, float]
    memory: dict[str, Any]
    snapshot: Callable[[], Snapshot]
    task: Task = tasks.classification


class Monitor:
    """One question put to a training while it runs: a frozen dataclass of plain fields.

    All that it remembers is in ``Moment.memory``, so that one monitor can watch several trainings, and a training that
    was killed and resumed goes on as if it had not been.
    """

    @property
    def detectors(self) -> tuple[str, ...]:
        """Names of the parts that can fire by themselves, where there are several; see ``fired_``... in the history."""
        return ()

    def check(self, threat: Threat | None) -> None:
        """Before training: refuse one that cannot be watched; ``threat`` is that of the defence's attack.

        Raises:
            UserError: saying what is missing.
        """

    def after_step(self, moment: Moment) -> Action | None:
        """After each step; costs what it computes."""
        return None

    def after_epoch(self, moment: Moment) -> Action | None:
        """At the end of each epoch, when its weights have been judged."""
        return None
