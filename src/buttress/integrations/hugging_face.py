"""Hugging Face's Trainer: a defence in place of the model's own loss, and robust accuracy by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from buttress import models, tasks
from buttress.attacks import Perturbation
from buttress.data.batches import read_batch
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Defence
from buttress.errors import UserError
from buttress.integrations.accuracy import Accuracies
from buttress.integrations.own_loop import DefenceLoss
from buttress.tasks import Task

try:
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    raise UserError(
        f"Hugging Face's Trainer cannot be imported ({error}): pip install 'buttress[hugging-face]'"
    ) from None


class DefenceTrainer(Trainer):
    """A Trainer whose training loss is a defence's objective: ``DefenceTrainer(model, args, defence=..., ...)``.

    The model is called with the inputs alone, which lie in the box of the defence's threat: an image processor must not
    normalise (``do_normalize=False``); normalise in the model, as by `models.Normalized`. Its ``logits`` are attacked.
    Evaluation is the Trainer's, with the model's own loss. With gradient accumulation the loss is a mean over batches.
    A training that goes on from a checkpoint goes on at its step.

    Args:
        *args: of ``Trainer``.
        defence: the method; what needs `buttress.fit`, or has weights of its own, is refused.
        data: what is trained on, for methods that look at it before, such as `LayerRegularised`.
        seed: of the attacks and the method's own draws.
        task: what the logits are for.
        **options: of ``Trainer``; ``compute_loss_func`` and label smoothing would have no effect and are refused.

    Raises:
        UserError: for these, and when the training starts for a method that this cannot serve.
    """

    loss_is_scaled_for_ga = False  # the Trainer divides by the number of accumulated batches

    def __init__(
        self,
        *args: Any,
        defence: Defence,
        data: Dataset | None = None,
        seed: int = 0,
        task: Task = tasks.classification,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        for name, option in (("compute_loss_func", self.compute_loss_func), ("label smoothing", self.label_smoother)):
            if option is not None:
                raise UserError(f"{name} has no effect on a defence, whose objective is trained: leave it out")
        self.model_accepts_loss_kwargs = False  # what `loss_is_scaled_for_ga` says, to older versions
        self.defence = defence
        self._settings: dict[str, Any] = {"data": data, "seed": seed, "task": task}
        self._objective: DefenceLoss | None = None

    def train(self, *args: Any, **options: Any) -> Any:
        """As ``Trainer.train``."""
        self._objective = None
        return super().train(*args, **options)

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, **options: Any) -> Any:
        """The defence's objective for a batch in training; the model's own loss in evaluation."""
        if return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, **options)
        x, y = read_batch(dict(inputs))
        if self._objective is None:
            self._objective = self._begin()
            self._objective.whole.defence.to(x.device)
        objective = self._objective
        if model is self.model:
            return objective(x, y)
        return _through(model, self.model, lambda: objective(x, y), x)

    def _begin(self) -> DefenceLoss:
        accumulated = self.args.gradient_accumulation_steps
        epochs = max(1, int(self.state.num_train_epochs))
        loader = self.callback_handler.train_dataloader
        try:
            batches = len(loader)
        except TypeError:  # it tells no length
            batches = max(1, self.state.max_steps * accumulated // epochs)
        network = models.Output(self.model, "logits", training_only=True)
        objective = DefenceLoss(self.defence, network, epochs=epochs, steps_per_epoch=batches, **self._settings)
        objective.require_no_weights("the Trainer's optimiser")
        objective.step = self.state.global_step * accumulated
        return objective


def _through(wrapper: Any, network: nn.Module, work: Callable[[], Tensor], x: Tensor) -> Any:
    """``work()``, in which the network is called, inside of one call of what several processes wrap it into.

    Their gradients are summed for that call; calls of the network beside it would go unseen.
    """
    own = vars(network).get("forward")  # of the object itself, as where it was wrapped for mixed precision

    def put_back() -> None:
        vars(network).pop("forward", None)
        if own is not None:
            network.forward = own

    def once(*_: Any, **__: Any) -> Tensor:
        put_back()
        return work()

    network.forward = once
    try:
        return wrapper(x)
    finally:
        put_back()


class TrainerRobustness(TrainerCallback):
    """Logs ``clean_accuracy`` and ``robust_accuracy`` after each epoch.

    Give it to a Trainer that there is: ``trainer.add_callback(TrainerRobustness(trainer, data))``. The figures are
    among the metrics of the evaluation that follows, so that ``metric_for_best_model="robust_accuracy"`` works. Every
    process of several measures them on all inputs.

    Args:
        trainer: whose model it is, and which logs.
        data: a data set, of which the validation split counts; a split; or batches such as a ``DataLoader`` gives,
            the same ones in the same order every time.
        attack: PGD-10 in its own threat, linf 8/255, unless given.
        limit: the first so many inputs.
        seed: of the attack.
        task: what the logits are for.
    """

    def __init__(
        self,
        trainer: Any,
        data: Any,
        attack: Perturbation | None = None,
        *,
        limit: int = 500,
        seed: int = 0,
        task: Task = tasks.classification,
    ) -> None:
        self.trainer = trainer
        self.accuracies = Accuracies(data=data, attack=attack, limit=limit, seed=seed, task=task)
        self.figures: dict[str, float] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure."""
        network = models.Output(self.trainer.model, "logits", training_only=True)
        self.figures = self.accuracies.measure(network)
        self.trainer.log(dict(self.figures))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Put the newest among the metrics of an evaluation."""
        if metrics is not None:
            metrics |= {f"eval_{name}": figure for name, figure in self.figures.items()}
