"""A defence's objective in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Defence, StepContext
from buttress.defences.base.length import check_length
from buttress.defences.base.wrapper import WrapperDefence
from buttress.engine.runner import Twins
from buttress.errors import UserError
from buttress.layers.network_code import NetworkCode
from buttress.tasks import Task
from buttress.training.step import StepLoss
from buttress.validation import whole

_MORE = {
    "step": "several updates a batch",
    "end_epoch": "what it remembers from epoch to epoch",
    "finish": "what it does to the trained network",
}


class DefenceLoss(nn.Module):
    """The loss of a batch, as a defence has it, to be minimised by whatever loop and optimiser there are.

    In place of ``loss = criterion(model(x), y)`` of a loop stands ``loss = objective(x, y)``::

        objective = DefenceLoss(defences.TRADES(), model, epochs=10, steps_per_epoch=len(loader))
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)  # those of the method too, where it has some
        for x, y in loader:
            optimizer.zero_grad()
            objective(x, y).backward()
            optimizer.step()

    On the same batches it is what `buttress.fit` minimises, bit for bit where the loop's draws (dropout) are. Of what
    `fit` does beside that, validation, choice of weights and averaging are the loop's own affair, and the model's mode:
    call ``model.train()`` as usual. Its ``state_dict`` holds the step too, for loops that go on.

    Args:
        defence: the method; one whose steps, epochs or end are more than an objective is refused.
        model: gives logits for inputs in the box of the defence's threat.
        epochs: of the whole training, by which some methods rise or fall.
        steps_per_epoch: batches in an epoch.
        data: what is trained on, for methods that look at it before, such as `LayerRegularised`.
        seed: of the attacks and the method's own draws.
        task: what the model's output is for.

    Attributes:
        step: batches so far; set it where a loop goes on.
        figures: of the last batch, named by the method.

    Raises:
        UserError: for a method that needs `buttress.fit`, saying what for.
    """

    def __init__(
        self,
        defence: Defence,
        model: nn.Module,
        *,
        epochs: int,
        steps_per_epoch: int,
        data: Dataset | None = None,
        seed: int = 0,
        task: Task = tasks.classification,
    ) -> None:
        super().__init__()
        whole("epochs", epochs)
        whole("steps_per_epoch", steps_per_epoch)
        for name, what in _MORE.items():
            if method := _overriding(defence, name):
                raise UserError(f"{method.label()} is more than a loss ({what}): train with buttress.fit")
        if defence.preparation:
            raise UserError(f"{defence.label()} first {defence.preparation}: train with buttress.fit")
        defence.for_task(task)
        check_length(defence, epochs, defaults=False)
        if method := _overriding(defence, "prepare"):
            if data is None:
                raise UserError(f"{method.label()} looks at the data before training: give data=, a Dataset")
            if defence.prepare(model, data, seed) is not data:
                raise UserError(f"{method.label()} makes its own data to train on: train with buttress.fit")
        self.whole = StepLoss(model, defence)
        self.figures: Mapping[str, Tensor] = {}
        self.step = 0
        self._epochs, self._per_epoch, self._seed, self._task = epochs, steps_per_epoch, seed, task
        self._twins: Twins = {}
        self._code = NetworkCode()

    def forward(self, x: Tensor, y: Tensor, ids: Tensor | None = None) -> Tensor:
        """The scalar to be minimised for one batch; each call is a step further.

        Args:
            x: (N, ...) inputs.
            y: (N,) classes, or what else the task asks for.
            ids: (N,) int64, what identifies each input, on which the attacks' draws depend; positions in the batch
                unless given.
        """
        ids = torch.arange(len(x), device=x.device) if ids is None else ids
        self.whole.context = StepContext(
            self.whole.model,
            Batch(x, y, ids),
            index=self.step,
            progress=self.step / (self._epochs * self._per_epoch),
            epoch=self.step / self._per_epoch,
            epochs=self._epochs,
            seed=self._seed,
            twins=self._twins,
            code=self._code,
            task=self._task,
        )
        loss: Tensor = self.whole(x, y, ids)
        self.figures = self.whole.logs
        self.step += 1
        return loss

    def get_extra_state(self) -> int:
        """The step, for ``state_dict``."""
        return self.step

    def set_extra_state(self, state: int) -> None:
        """Go on at this step."""
        self.step = state

    def require_no_weights(self, optimizer: str) -> None:
        """Refuse a method with weights of its own, which an optimiser of the network's alone leaves as they are.

        Args:
            optimizer: whose it is, for the error line.

        Raises:
            UserError: naming the method.
        """
        defence = self.whole.defence
        if any(weight.requires_grad for weight in defence.parameters()):
            raise UserError(
                f"{defence.label()} has weights of its own, which {optimizer} does not train: take DefenceLoss, in a "
                "loop of your own, with an optimiser of objective.parameters()"
            )


def _overriding(defence: Defence, name: str) -> Defence | None:
    """The method, this or one inside, that has a ``name`` of its own, which is not only handed on; if any has."""
    usual = (getattr(Defence, name), getattr(WrapperDefence, name))
    methods = (part for part in defence.modules() if isinstance(part, Defence))
    return next((method for method in methods if getattr(type(method), name) not in usual), None)
