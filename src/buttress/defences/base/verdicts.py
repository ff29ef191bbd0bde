"""Whether a network is right about each input of a split: what training methods steer by between epochs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.data.dataset import BATCH, Split
from buttress.defences.base.memory import ClassCounts
from buttress.engine.input_dtype import suited
from buttress.engine.preserved_model import preserved
from buttress.model_call import call_model
from buttress.tasks import Task


@dataclass(frozen=True)
class Verdicts:
    """Whether a network is right about each input of a split.

    Attributes:
        y: (N,) classes, on the CPU as all of these.
        clean: (N,) bool, for the input itself.
        robust: (N,) bool, for the input and under the attack; the same as ``clean`` where nothing attacks.
    """

    y: Tensor
    clean: Tensor
    robust: Tensor

    def share(self, right: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """(C,) share of each class that is ``right`` (N,), and (C,) bool whether the class has inputs at all."""
        counts = ClassCounts(classes)
        counts.note(right, self.y)
        return counts.take()


def judge(
    model: nn.Module, split: Split, attack: Perturbation | None, seed: int, task: Task = tasks.classification
) -> Verdicts:
    """Ask a network, in eval mode and left as it is, about every input of a split; equal seeds give equal answers.

    Cost: one forward pass per input and those of the attack, for the inputs that are right.
    """
    clean, robust = [], []
    for index in torch.split(torch.arange(len(split)), BATCH):
        x, y, ids = split.take(index)
        x = suited(model, x)
        y, ids = y.to(x.device), ids.to(x.device)
        with preserved(model, "eval", seed, x.device), torch.no_grad():
            right = ~task.is_adversarial(task.read(call_model(model, x)), y)
        clean.append(right.cpu())
        if attack is not None:
            right = right & ~attack(model, x, y, task=task, seed=seed, ids=ids, search="first").success
        robust.append(right.cpu())
    return Verdicts(split.y, torch.cat(clean), torch.cat(robust))
