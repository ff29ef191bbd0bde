"""The training loop: steps, epochs, checkpoints; on Lightning Fabric."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.passes import CraftPrecision, Twins
from buttress.data.base import Dataset
from buttress.defences.base import At, Batch, Defence, Loss
from buttress.errors import UserError
from buttress.random import derive
from buttress.training import checkpoint
from buttress.training.batches import Batches, input_dtype
from buttress.training.logs import Logs
from buttress.training.optimisation import Average, Optimiser, Schedule
from buttress.training.validation import Validation, check_outputs, validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Interrupted(Exception):  # noqa: N818  (not an error: the run is saved and can go on)
    """Training was asked to stop; its checkpoint is saved. ``signal`` is the signal's number."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step, self.signal = step, number


class Progress(Protocol):
    """Someone who watches a training."""

    def __call__(self, done: float, figures: Mapping[str, float]) -> None:
        """A share ``done`` of the training is over; ``figures`` holds the latest of each name."""
        ...


class TrainingStep(nn.Module):
    """The model and its defence as one module whose forward is the loss; attacks see the plain model inside."""

    def __init__(self, model: nn.Module, defence: Defence) -> None:
        super().__init__()
        self.model, self.defence = model, defence
        self.at: At | None = None
        self.logs: Mapping[str, Tensor] = {}

    def forward(self, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        """The step's objective, auxiliary terms of the model included."""
        assert self.at is not None
        loss = self.defence.loss(self.model, Batch(x, y, ids), self.at)
        self.logs = loss.logs
        return loss.value + sum(self.at.auxiliary) if self.at.auxiliary else loss.value


@dataclass
class _Do:
    """What a `Defence.step` may do with one batch."""

    batch: Batch
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[], Loss]
    backward: Callable[[Loss], None]
    apply: Callable[[], None]

    def update(self, loss: Loss) -> None:
        self.backward(loss)
        self.apply()


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Note SIGTERM and SIGINT instead of dying of them; the list holds what came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Loop:
    """One training: its state, and how it moves on.

    Everything that a later step depends on is in `_save`'s checkpoint or is a function of the seed and the step.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        data: Dataset,
        defence: Defence,
        optimiser: Optimiser,
        schedule: Schedule,
        *,
        clip: float | None,
        average: float | None,
        epochs: int,
        batch_size: int,
        seed: int,
        attack: Perturbation | None,
        validate_on: int,
        search_precision: CraftPrecision | None = None,
    ) -> None:
        mixed = fabric._precision.precision == "bf16-mixed"
        self.search_precision: CraftPrecision = search_precision or ("bf16" if mixed else "fp32")
        self.twins: Twins = {}
        self.fabric, self.schedule, self.clip, self.epochs, self.seed = fabric, schedule, clip, epochs, seed
        self.base_lr, self.attack = optimiser.lr, attack
        self.val = data.val.stratified(validate_on, seed)
        self.step_module = TrainingStep(model, defence)
        self.device = fabric.device
        parameters = [p for p in self.step_module.parameters() if p.requires_grad]
        if not parameters:
            raise UserError("the model has no parameters that can be trained")
        self.module, self.optimizer = fabric.setup(self.step_module, optimiser.build(parameters))
        self.batches = Batches(
            data, batch_size, seed, self.device, fabric.global_rank, fabric.world_size, input_dtype(model)
        )
        check_outputs(model, data.train, self.device)
        self.steps = epochs * self.batches.per_epoch
        self.average = None if average is None else Average(model, average)
        self.index = 0  # steps done
        self.sums: dict[str, float] = {}  # of this epoch's figures, by name; "count" of the steps
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_rank: tuple[float, float] | None = None
        self.best_epoch = 0

    def weights(self) -> dict[str, Tensor]:
        """The model's present weights, or their moving average where there is one; copies."""
        state = self.average.state if self.average else self.step_module.model.state_dict()
        return {name: value.detach().clone() for name, value in state.items()}

    def run(
        self, folder: Path | None, resume: bool, seconds: float, progress: Progress | None, came: list[int]
    ) -> None:
        """Train to the end, from the newest checkpoint in ``folder`` when resuming."""
        kept = None if folder is None else folder / "checkpoints"
        newest = checkpoint.latest(kept) if kept is not None and resume else None
        if newest is not None:
            self._restore(newest)
        logs = Logs(folder if self.fabric.is_global_zero else None, self.index)
        saved = time.monotonic()
        figures: dict[str, float] = dict(self.history[-1]) if self.history else {}
        while self.index < self.steps:
            epoch, start = divmod(self.index, self.batches.per_epoch)
            for batch in self.batches.epoch(epoch, start):
                self._step(batch, epoch)
                if progress is not None:
                    progress(self.index / self.steps, figures)
                last = self.index == (epoch + 1) * self.batches.per_epoch
                if kept is not None and not last and (came or time.monotonic() - saved > seconds):
                    self._save(kept)
                    saved = time.monotonic()
                if came and not last:
                    raise Interrupted(self.index, came[0])
            self._end_epoch(epoch)
            figures = self.history[-1]
            logs.write(self.history, self.index)
            if kept is not None:
                self._save(kept)
                saved = time.monotonic()
            if progress is not None:
                progress(self.index / self.steps, figures)
            if came:
                raise Interrupted(self.index, came[0])

    def _step(self, batch: Batch, epoch: int) -> None:
        model, per_epoch = self.step_module.model, self.batches.per_epoch
        self.module.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr * self.schedule.at(self.index / self.steps)
        torch.manual_seed(derive(self.seed, "torch", self.index))
        at = self.step_module.at = At(
            model,
            batch,
            index=self.index,
            progress=self.index / self.steps,
            epoch=self.index / per_epoch,
            seed=self.seed,
            precision=self.search_precision,
            twins=self.twins,
        )

        def loss() -> Loss:
            at.passes.clear()
            at.auxiliary.clear()
            return Loss(self.module(batch.x, batch.y, batch.ids), self.step_module.logs)

        def backward(loss: Loss) -> None:
            value = float(loss.value.detach())
            if value != value or abs(value) == float("inf"):
                raise UserError(
                    f"the loss is {value} at step {self.index} (epoch {epoch + 1}): training diverged; "
                    "lower the learning rate or clip the gradient. The last checkpoint is intact"
                )
            self.fabric.backward(loss.value)
            figures = {
                "loss": value,
                **{name: float(torch.as_tensor(figure).detach()) for name, figure in loss.logs.items()},
                "count": 1.0,
            }
            for name, figure in figures.items():
                self.sums[name] = self.sums.get(name, 0.0) + figure

        def apply() -> None:
            if self.clip is not None:
                self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average is not None:
                self.average.update(model)

        self.optimizer.zero_grad()  # of what the caller or a method left behind
        self.step_module.defence.step(_Do(batch, model, self.optimizer, loss, backward, apply))
        self.index += 1

    def _end_epoch(self, epoch: int) -> None:
        count = max(self.sums.pop("count", 0.0), 1.0)
        row = {"epoch": float(epoch + 1), **{name: total / count for name, total in self.sums.items()}}
        self.sums = {}
        self._agree()
        checkpoint.check_finite(self.step_module.state_dict(), self.index)
        found = self._validate()
        row["clean"] = found.clean
        if found.robust is not None:
            row["robust"] = found.robust
        self.history.append(row)
        if self.best_rank is None or found.rank > self.best_rank:
            self.best, self.best_rank, self.best_epoch = self.weights(), found.rank, epoch + 1

    def _agree(self) -> None:
        """Give all processes the buffers of the first: BatchNorm's follow each one's own share of the batches."""
        if self.fabric.world_size == 1:
            return
        average = self.average.state.values() if self.average else ()
        for value in (*self.step_module.buffers(), *average):
            torch.distributed.broadcast(value, 0)

    def _validate(self) -> Validation:
        model = self.step_module.model
        if self.average is None:
            return validate(model, self.val, self.attack, self.seed, self.device)
        present = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.average.state)
        try:
            return validate(model, self.val, self.attack, self.seed, self.device)
        finally:
            model.load_state_dict(present)

    def _save(self, folder: Path) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {"optimizer": self.optimizer.state_dict(), "best": self.best}
        if self.average is not None:
            state["average"] = self.average.state
        progress = {
            "index": self.index,
            "sums": self.sums,
            "history": self.history,
            "best_rank": self.best_rank,
            "best_epoch": self.best_epoch,
        }
        checkpoint.save(folder, self.index, self.step_module.state_dict(), state, progress)

    def _restore(self, path: Path) -> None:
        weights, state, progress = checkpoint.load(path)
        try:
            self.step_module.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            self._set(state, progress)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"the checkpoint {path} is of another model or training method: {reason}") from None

    def _set(self, state: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        self.best = {name: value.to(self.device) for name, value in state["best"].items()}
        if self.average is not None:
            self.average.state = {name: value.to(self.device) for name, value in state["average"].items()}
        self.index, self.sums, self.history = progress["index"], progress["sums"], progress["history"]
        self.best_rank = None if progress["best_rank"] is None else tuple(progress["best_rank"])
        self.best_epoch = progress["best_epoch"]
