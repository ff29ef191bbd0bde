"""Monitors during training: what they see and remember, and which of their actions is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Defence
from buttress.engine.preserved_model import preserved
from buttress.random import derive
from buttress.tasks import Task
from buttress.threat import Threat
from buttress.training.monitors.base import Action, Moment, Monitor, Snapshot


def threat_of(defence: Defence) -> Threat | None:
    """The threat that a defence trains against, if it does."""
    return None if defence.attack is None else defence.attack.within().threat


def check_monitors(monitors: Sequence[Monitor], defence: Defence) -> None:
    """Refuse monitors that cannot watch this defence.

    Raises:
        UserError: saying why.
    """
    for monitor in monitors:
        monitor.check(threat_of(defence))


class Watch:
    """The monitors of one training, each with its memory.

    Args:
        monitors: each sees every step and every end of an epoch.
        model: what is trained, without its defence.
        data: what it is trained on.
        defence: how.
        epochs: of the whole training.
        per_epoch: steps of an epoch.
        seed: of the training.
        snapshot: copies the present weights.
        task: what the model's output is for.

    Attributes:
        notes: what they reported, a sentence each.
        figures: what they measured during this epoch.
        stopped: whether one of them ended the training.
    """

    def __init__(
        self,
        monitors: Sequence[Monitor],
        model: nn.Module,
        data: Dataset,
        defence: Defence,
        epochs: int,
        per_epoch: int,
        seed: int,
        snapshot: Callable[[], Snapshot],
        task: Task = tasks.classification,
    ) -> None:
        self.monitors, self.model, self.data, self.defence = list(monitors), model, data, defence
        self.task = task
        self.epochs, self.per_epoch, self.seed, self.snapshot = epochs, per_epoch, derive(seed, "monitors"), snapshot
        self.memories: list[dict[str, Any]] = [{} for _ in self.monitors]
        self.notes: list[str] = []
        self.figures: dict[str, float] = {}
        self.stopped = False

    def after_step(self, batch: Batch, step: int, figures: dict[str, float]) -> Action | None:
        """Show each monitor a step that is done; the action that counts most, if there is any."""
        return self._ask("after_step", batch, step, figures)

    def after_epoch(self, batch: Batch, step: int, row: dict[str, float]) -> Action | None:
        """Show each monitor the end of an epoch and its row of figures."""
        return self._ask("after_epoch", batch, step, row)

    def _ask(self, question: str, batch: Batch, step: int, figures: dict[str, float]) -> Action | None:
        decision: Action | None = None
        epoch = (step - 1) // self.per_epoch + 1
        for monitor, memory in zip(self.monitors, self.memories, strict=True):
            moment = Moment(
                model=self.model,
                data=self.data,
                batch=batch,
                threat=threat_of(self.defence),
                step=step,
                per_epoch=self.per_epoch,
                epoch=epoch,
                epochs=self.epochs,
                seed=self.seed,
                figures=figures,
                memory=memory,
                snapshot=self.snapshot,
                task=self.task,
            )
            with preserved(self.model, "eval", self.seed, batch.x.device):
                action = getattr(monitor, question)(moment)
            if action is not None:
                self.notes.append(f"epoch {epoch}: {action.text}")
                decision = action if decision is None else max((decision, action), key=_weight)
        return decision

    def state(self) -> list[dict[str, Any]]:
        """What the monitors remember, for a checkpoint."""
        return self.memories

    def progress(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"notes": self.notes, "figures": self.figures, "stopped": self.stopped}

    def restore(self, state: list[dict[str, Any]], progress: dict[str, Any], device: torch.device) -> None:
        """Put back what `state` and `progress` returned."""
        self.memories = [_moved(memory, device) for memory in state]
        self.notes, self.figures, self.stopped = progress["notes"], progress["figures"], progress["stopped"]


def _weight(action: Action) -> int:
    return ("note", "stop", "rollback").index(action.kind)


def _moved(tree: Any, device: torch.device) -> Any:
    """Plain values and tensors, the tensors on ``device``."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: _moved(value, device) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_moved(value, device) for value in tree)
    return tree
