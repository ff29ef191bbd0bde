"""The training loop: steps, epochs, checkpoints; on Lightning Fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from buttress import processes
from buttress.attacks import Perturbation
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Defence, Epoch, StepContext
from buttress.engine.fabric import first_answers
from buttress.engine.input_dtype import input_dtype
from buttress.engine.runner import CraftPrecision, Twins
from buttress.errors import UserError
from buttress.layers.network_code import NetworkCode
from buttress.random import derive, seed_torch
from buttress.tensor_forms import formed_state
from buttress.training import checkpoint
from buttress.training.averaging import Averaging, average_of
from buttress.training.batches import Batches
from buttress.training.config import TrainingConfig
from buttress.training.cost import Clock
from buttress.training.divergence import remedy
from buttress.training.learning_rate import LearningRate
from buttress.training.logs import Logs
from buttress.training.monitoring import Watch
from buttress.training.monitors.base import Action
from buttress.training.signals import Interrupted
from buttress.training.step import BatchStep, StepLoss
from buttress.training.token_inputs import held_spread
from buttress.training.validation import Validation, check_outputs, validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Progress(Protocol):
    """A function that follows the progress of a training."""

    def __call__(self, done: float, figures: Mapping[str, float]) -> None:
        """A share ``done`` of the training is over; ``figures`` holds the latest of each name."""
        ...


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
        config: TrainingConfig,
        attack: Perturbation | None,
        seed: int,
    ) -> None:
        mixed = fabric._precision.precision == "bf16-mixed"
        self.search_precision: CraftPrecision = config.search_precision or ("bf16" if mixed else "fp32")
        self.twins: Twins = {}
        self.code = NetworkCode()
        self.fabric, self.config, self.attack, self.data, self.seed = fabric, config, attack, data, seed
        self.val = data.val.stratified(config.validate_on, seed).held()
        self.step_loss = StepLoss(model, defence)
        self.device = fabric.device
        parameters = [p for p in self.step_loss.parameters() if p.requires_grad]
        if not parameters:
            raise UserError("the model has no parameters that can be trained")
        optimizer = config.optimiser.build(parameters)
        self.module, self.optimizer = fabric.setup(self.step_loss, optimizer)
        dtype = input_dtype(model, data.train.take(torch.arange(min(2, len(data.train))))[0])
        place = (self.device, fabric.global_rank, fabric.world_size)
        self.batches = Batches(data, config.batch_size, seed, *place, dtype, config.workers)
        check_outputs(model, data.train, self.device, config.task)
        epochs, per_epoch = config.epochs, self.batches.per_epoch
        self.steps = epochs * per_epoch
        self.learning_rate = LearningRate(config.schedule, optimizer, epochs, per_epoch)
        self.averaging = Averaging(average_of(config.average), model)
        self.spread = held_spread(model, data, defence)
        snapshot = self.averaging.snapshot
        self.watch = Watch(config.monitors, model, data, defence, epochs, per_epoch, seed, snapshot, config.task)
        self.index = 0  # steps done
        self.sums: dict[str, tuple[float, int]] = {}  # of this epoch's figures, by name, and how many were added
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_rank: tuple[float, float] | None = None
        self.best_epoch = 0
        self.clock = Clock(None)

    def run(self, folder: Path | None, resume: bool, progress: Progress | None, signals: list[int]) -> None:
        """Train to the end, from the newest checkpoint in ``folder`` when resuming; a monitor may end it earlier."""
        checkpoints = None if folder is None else folder / "checkpoints"
        held = None
        if checkpoints is not None and resume:
            held = first_answers(self.fabric, partial(_newest, checkpoints))
        self.clock = Clock(folder if self.fabric.is_global_zero else None)
        if held is not None:
            self._restore(*held)
        with Logs(folder if self.fabric.is_global_zero else None, self.index, self.config.loggers) as logs:
            self._train(checkpoints, logs, progress, signals)

    def _train(self, checkpoints: Path | None, logs: Logs, progress: Progress | None, signals: list[int]) -> None:
        saved = time.monotonic()
        figures: dict[str, float] = dict(self.history[-1]) if self.history else {}
        while self.index < self.steps and not self.watch.stopped:
            epoch, start = divmod(self.index, self.batches.per_epoch)
            for batch in self._batches(epoch, start, checkpoints):
                self._step(batch, epoch)
                action = self._ask(self.watch.after_step, batch, self.watch.figures)
                if progress is not None:
                    progress(self.index / self.steps, figures)
                last = self.index == (epoch + 1) * self.batches.per_epoch
                if action is not None and action.ends:
                    break
                late = time.monotonic() - saved > self.config.checkpoint_seconds
                stop = self._stop(signals)
                if checkpoints is not None and not last and (stop or late):
                    self._save(checkpoints)
                    saved = time.monotonic()
                if stop and not last:
                    self._leave(stop)
            self._end_epoch(epoch, batch, action)
            figures = self.history[-1]
            logs.write(self.history, self.index)
            if checkpoints is not None:
                self._save(checkpoints)
                saved = time.monotonic()
            if progress is not None:
                progress(self.index / self.steps, figures)
            if stop := self._stop(signals):
                self._leave(stop)

    def _batches(self, epoch: int, start: int, checkpoints: Path | None) -> Iterator[Batch]:
        """Those of an epoch; what was trained is saved where inputs can no longer be read."""
        try:
            yield from self.batches.epoch(epoch, start)
        except UserError as error:
            if checkpoints is None:
                raise
            self._save(checkpoints)
            raise UserError(f"{error}; what was trained is saved: --resume goes on") from None

    def _stop(self, signals: list[int]) -> int:
        """The signal at which to stop, the same in all processes, though it may have reached one of them only; or 0."""
        own = signals[0] if signals else 0
        return max(processes.gather(own)) if self.fabric.world_size > 1 else own

    def _leave(self, stop: int) -> NoReturn:
        self.fabric.barrier()  # the first has written its checkpoint
        raise Interrupted(self.index, stop)

    def _step(self, batch: Batch, epoch: int) -> None:
        model, step_loss = self.step_loss.model, self.step_loss
        self.module.train()
        self.learning_rate.before_step(self.index / self.steps)
        seed_torch(derive(self.seed, "torch", self.index), self.device)
        context = step_loss.context = StepContext(
            model,
            batch,
            index=self.index,
            progress=self.index / self.steps,
            epoch=self.index / self.batches.per_epoch,
            epochs=self.config.epochs,
            seed=self.seed,
            precision=self.search_precision,
            twins=self.twins,
            code=self.code,
            task=self.config.task,
        )
        step = BatchStep(
            batch=batch,
            model=model,
            optimizer=self.optimizer,
            context=context,
            step_loss=step_loss,
            module=self.module,
            fabric=self.fabric,
            config=self.config,
            sums=self.sums,
            after_update=self._after_update,
            where=f"step {self.index} (epoch {epoch + 1})",
            updated=self.index > 0,
        )
        self.optimizer.zero_grad()  # of what the caller or a method left behind
        try:
            step_loss.defence.step(step)
        except RuntimeError as error:
            if "find_unused_parameters" not in str(error):
                raise
            raise UserError(
                "some weights take no part in a training step, which several processes must know: give "
                "--strategy ddp_find_unused_parameters_true, or switch off the gradients of these weights"
            ) from None
        self.learning_rate.after_step()
        self.index += 1

    def _after_update(self) -> None:
        if self.spread is not None:
            self.spread.restore()
        self.averaging.after_step()

    def _ask(
        self,
        question: Callable[[Batch, int, dict[str, float]], Action | None],
        batch: Batch,
        figures: dict[str, float],
    ) -> Action | None:
        """What the monitors of the first process answer, known to all processes."""
        if not self.watch.monitors:
            return None
        answer: Any = None
        if self.fabric.is_global_zero:
            answer = (question(batch, self.index, figures), self.watch.notes, figures)
        action: Action | None
        action, self.watch.notes, news = self.fabric.broadcast(answer)
        figures.update(news)
        self.watch.stopped = action is not None and action.ends
        return action

    def _end_epoch(self, epoch: int, batch: Batch, action: Action | None) -> None:
        """Judge the epoch; ``action`` is what a monitor answered to its last step, which may have cut it short."""
        row = {"epoch": float(epoch + 1), **{name: total / count for name, (total, count) in self.sums.items()}}
        row |= self.watch.figures
        self.sums, self.watch.figures = {}, {}
        self._agree(self.step_loss.buffers())
        checkpoint.check_finite(self.step_loss.state_dict(), self.index, remedy(self.step_loss.defence, self.config))
        seed = derive(self.seed, "end of epoch", epoch)
        seed_torch(seed, self.device)
        model, defence = self.step_loss.model, self.step_loss.defence
        if not self.watch.stopped:
            defence.end_epoch(Epoch(model, self.data, epoch + 1, self.config.epochs, seed, row))
            inputs = (batch.x for batch in self.batches.epoch(epoch))
            self.averaging.after_epoch(self.index / self.steps, self._validate, inputs, row)
        self._agree(self.averaging.mean.weights.values())
        validation = self._judge(row)
        if not self.watch.stopped:
            action = self._ask(self.watch.after_epoch, batch, row)
        if action is not None and action.kind == "rollback" and action.snapshot is not None:
            row |= {f"{name}_before_rollback": row[name] for name in ("clean", "robust") if name in row}
            self.averaging.restore(action.snapshot, self.device)
            validation = self._judge(row)
        self.history.append(row)
        if self.best_rank is None or validation.rank > self.best_rank:
            self.best, self.best_rank, self.best_epoch = self.averaging.weights(), validation.rank, epoch + 1
        self.learning_rate.after_epoch(validation.rank[0])

    def _agree(self, values: Iterable[Tensor]) -> None:
        """Give all processes those of the first: BatchNorm's buffers follow each one's own share of the batches."""
        if self.fabric.world_size > 1:
            for value in values:
                torch.distributed.broadcast(value, 0)

    def _judge(self, row: dict[str, float]) -> Validation:
        """The average, or the present weights where there is none, on the validation split."""
        with self.averaging.averaged_model():
            validation = self._validate()
        row["clean"] = validation.clean
        if validation.robust is not None:
            row["robust"] = validation.robust
        return validation

    def _validate(self) -> Validation:
        return validate(self.step_loss.model, self.val, self.attack, self.seed, self.device, self.config.task)

    def _save(self, folder: Path) -> None:
        if not self.fabric.is_global_zero:
            return
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "best": self.best}
        if self.averaging.policy is not None:
            state["average"] = self.averaging.mean.state()
        if self.learning_rate.scheduler is not None:
            state["schedule"] = self.learning_rate.state()
        if self.watch.monitors:
            state["monitors"] = self.watch.state()
        progress = {
            "index": self.index,
            "sums": self.sums,
            "history": self.history,
            "best_rank": self.best_rank,
            "best_epoch": self.best_epoch,
            **({"monitors": self.watch.progress()} if self.watch.monitors else {}),
            **({} if self.spread is None else {"spread": self.spread.value}),
        }
        cure = remedy(self.step_loss.defence, self.config)
        checkpoint.save(folder, self.index, self.step_loss.state_dict(), state, progress, cure)
        self.clock.write()

    def _restore(self, path: Path, content: checkpoint.Content) -> None:
        weights, state, progress = content
        try:
            self.step_loss.load_state_dict(formed_state(weights, self.step_loss.state_dict()))
            self.optimizer.load_state_dict(state["optimizer"])
            self._set(state, progress)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"the checkpoint {path} is of another model or training method: {reason}") from None

    def _set(self, state: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        self.best = {name: value.to(self.device) for name, value in state["best"].items()}
        if self.averaging.policy is not None:
            self.averaging.mean.restore(state["average"], self.device)
        if self.learning_rate.scheduler is not None:
            self.learning_rate.restore(state["schedule"])
        if self.watch.monitors:
            self.watch.restore(state["monitors"], progress["monitors"], self.device)
        if self.spread is not None:
            self.spread.value = progress["spread"]
        self.index, self.sums, self.history = progress["index"], progress["sums"], progress["history"]
        self.best_rank = None if progress["best_rank"] is None else tuple(progress["best_rank"])
        self.best_epoch = progress["best_epoch"]


def _newest(folder: Path) -> tuple[Path, checkpoint.Content] | None:
    """The newest checkpoint and what it holds, read by the first process for all: the others may see no such folder."""
    path = checkpoint.latest(folder)
    return None if path is None else (path, checkpoint.load(path))
