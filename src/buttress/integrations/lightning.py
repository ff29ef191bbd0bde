"""Callbacks for Lightning's Trainer: a defence in place of the module's own loss, and robust accuracy by epoch."""

from __future__ import annotations

import math
import sys
from typing import Any

from torch import Tensor

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.data.batches import read_batch
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Defence
from buttress.errors import UserError
from buttress.integrations.accuracy import Accuracies
from buttress.integrations.own_loop import DefenceLoss
from buttress.tasks import Task

# The same library has two packages, whose classes do not mix: that which the program uses is taken.
try:
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback
    else:
        from lightning.pytorch import Callback
except ImportError as error:
    raise UserError(f"Lightning cannot be imported ({error}): pip install 'buttress[lightning]'") from None


class LightningDefence(Callback):
    """Trains a LightningModule by a defence: ``Trainer(callbacks=[LightningDefence(defences.TRADES())])``.

    While ``fit`` runs, the module's ``training_step`` is the defence's objective on its ``forward``, which must give
    logits for inputs in the box of the defence's threat; the module's own is back afterwards. Optimisers, validation,
    checkpoints and devices stay the module's and the Trainer's. Epochs and steps are read from the Trainer, and the
    step goes into its checkpoints. ``train_loss`` and the method's figures are logged.

    Args:
        defence: the method; what needs `buttress.fit`, or has weights of its own, is refused.
        data: what is trained on, for methods that look at it before, such as `LayerRegularised`.
        seed: of the attacks and the method's own draws.
        task: what the module's output is for.

    Raises:
        UserError: when the training starts, for a method or a training that this cannot serve.
    """

    def __init__(
        self, defence: Defence, *, data: Dataset | None = None, seed: int = 0, task: Task = tasks.classification
    ) -> None:
        super().__init__()
        self.defence = defence
        self._settings: dict[str, Any] = {"data": data, "seed": seed, "task": task}
        self._objective: DefenceLoss | None = None
        self._state: dict[str, Any] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Take the place of the module's ``training_step``."""
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise UserError(
                "LightningDefence needs automatic optimisation; with optimiser steps of your own, call DefenceLoss in "
                "your training_step"
            )
        pl_module.training_step = self._training_step

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin with the defence, or go on with it, now that it is known for how long."""
        epochs, batches = _length(trainer)
        objective = DefenceLoss(self.defence, pl_module, epochs=epochs, steps_per_epoch=batches, **self._settings)
        objective.require_no_weights("the module's optimiser")
        self._objective = objective
        if self._state:
            objective.step = self._state["step"]
            objective.whole.defence.load_state_dict(self._state["defence"])
            self._state = {}
        objective.whole.defence.to(pl_module.device)

    def _training_step(self, batch: Any, *_: Any, **__: Any) -> Tensor:
        objective = self._started()
        x, y = read_batch(batch)
        loss: Tensor = objective(x, y)
        module: Any = objective.whole.model
        figures = {f"train_{name}": figure for name, figure in objective.figures.items()}
        module.log_dict({"train_loss": loss.detach(), **figures}, batch_size=len(x))
        return loss

    def _started(self) -> DefenceLoss:
        assert self._objective is not None  # made by on_train_start
        return self._objective

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the module's own ``training_step`` back."""
        if stage == "fit":
            vars(pl_module).pop("training_step", None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """As `teardown`."""
        vars(pl_module).pop("training_step", None)

    def state_dict(self) -> dict[str, Any]:
        """For the Trainer's checkpoints."""
        objective = self._started()
        return {"step": objective.step, "defence": objective.whole.defence.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as a checkpoint says, when the training starts."""
        self._state = state_dict


def _length(trainer: Any) -> tuple[int, int]:
    """Epochs, and batches in one, of a Trainer that is about to train."""
    batches = trainer.num_training_batches
    if not math.isfinite(batches):
        raise UserError("a defence must know how long it trains: give the Trainer limit_train_batches, a number")
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        return trainer.max_epochs, int(batches)
    if trainer.max_steps < 0:
        raise UserError("a defence must know how long it trains: give the Trainer max_epochs or max_steps")
    return math.ceil(trainer.max_steps * trainer.accumulate_grad_batches / batches), int(batches)


class LightningRobustness(Callback):
    """Logs ``clean_accuracy`` and ``robust_accuracy`` with each validation, or after each epoch where there is none.

    Both can be monitored, as by ``ModelCheckpoint(monitor="robust_accuracy", mode="max")``. Every process of several
    measures them on all inputs.

    Args:
        data: a data set, of which the validation split counts; a split; or batches such as a ``DataLoader`` gives,
            the same ones in the same order every time.
        attack: PGD-10 in its own threat, linf 8/255, unless given.
        limit: the first so many inputs.
        seed: of the attack.
        task: what the module's output is for.
    """

    def __init__(
        self,
        data: Any,
        attack: Perturbation | None = None,
        *,
        limit: int = 500,
        seed: int = 0,
        task: Task = tasks.classification,
    ) -> None:
        super().__init__()
        self.accuracies = Accuracies(data=data, attack=attack, limit=limit, seed=seed, task=task)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure, but for the sanity check before training."""
        if not trainer.sanity_checking:
            pl_module.log_dict(self.accuracies.measure(pl_module))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure where nothing is validated."""
        if not trainer.enable_validation:
            pl_module.log_dict(self.accuracies.measure(pl_module))
