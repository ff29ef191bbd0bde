"""Figures by class that training methods steer by: counts of a running epoch, and verdicts on a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.data.dataset import BATCH, Split
from buttress.engine.preserved_model import preserved
from buttress.tasks import classification


class ClassCounts(nn.Module):
    """How many inputs of each class came, and how many of them were right; kept in buffers, so it is resumed.

    Args:
        classes: how many there are.
    """

    right: Tensor
    count: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("right", torch.zeros(classes))
        self.register_buffer("count", torch.zeros(classes))

    def note(self, right: Tensor, y: Tensor) -> None:
        """Add (N,) bool verdicts on inputs of classes ``y`` (N,)."""
        self.count += torch.bincount(y, minlength=len(self.count)).to(self.count)
        self.right += torch.bincount(y[right], minlength=len(self.count)).to(self.count)

    def take(self) -> tuple[Tensor, Tensor]:
        """(C,) share that was right and (C,) bool whether any came; counting starts again."""
        seen, share = self.count > 0, self.right / self.count.clamp(min=1)
        self.right, self.count = torch.zeros_like(self.right), torch.zeros_like(self.count)
        return share, seen


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


def judge(model: nn.Module, split: Split, attack: Perturbation | None, seed: int) -> Verdicts:
    """Ask a network, in eval mode and left as it is, about every input of a split; equal seeds give equal answers.

    Cost: one forward pass per input and those of the attack, for the inputs that are right.
    """
    first = next(model.parameters())
    clean, robust = [], []
    for index in torch.split(torch.arange(len(split)), BATCH):
        x, y, ids = (part.to(first.device) for part in split.take(index))
        x = x.to(first.dtype)
        with preserved(model, "eval", seed, first.device), torch.no_grad():
            right = ~classification.is_adversarial(classification.read(model(x)), y)
        clean.append(right.cpu())
        if attack is not None:
            right = right & ~attack(model, x, y, seed=seed, ids=ids, search="first").success
        robust.append(right.cpu())
    return Verdicts(split.y, torch.cat(clean), torch.cat(robust))
