"""Clean and robust accuracy on the validation split, by which the best weights are chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from buttress.attacks import Perturbation
from buttress.attacks.borrow import borrowed
from buttress.attacks.pgd import PGD
from buttress.data.base import Split
from buttress.defences.base import Defence
from buttress.tasks import classification
from buttress.training.batches import input_dtype

_BATCH = 256


@dataclass(frozen=True)
class Validation:
    """Accuracies in [0, 1]; ``robust`` is None where nothing attacks."""

    clean: float
    robust: float | None

    @property
    def rank(self) -> tuple[float, float]:
        """What is compared: robust accuracy first, clean accuracy second."""
        return (self.clean if self.robust is None else self.robust, self.clean)


def default_attack(defence: Defence) -> Perturbation | None:
    """PGD-10 in the threat that the defence trains against; None for one that trains against nothing."""
    threat = getattr(defence.attack, "threat", None)
    return None if threat is None else PGD(threat=threat, steps=10)


def check_outputs(model: nn.Module, split: Split, device: torch.device) -> None:
    """One pass in eval mode over an input of the lowest and one of the highest class; it leaves no trace.

    Raises:
        UserError: when the output is not logits for all classes of ``split``.
    """
    x, y, _ = (part.to(device) for part in split.take(torch.stack([split.y.argmin(), split.y.argmax()])))
    with borrowed(model, "eval", 0, device), torch.no_grad():
        classification.check(classification.read(model(x.to(input_dtype(model)))), y)


def validate(
    model: nn.Module, split: Split, attack: Perturbation | None, seed: int, device: torch.device
) -> Validation:
    """Accuracy on ``split``, clean and under ``attack``; the same draws every time, so epochs can be compared."""
    right = beaten = 0
    dtype = input_dtype(model)
    for start in range(0, len(split), _BATCH):
        index = torch.arange(start, min(start + _BATCH, len(split)))
        x, y, ids = (part.to(device) for part in split.take(index))
        x = x.to(dtype)
        with borrowed(model, "eval", seed, device), torch.no_grad():
            wrong = classification.beaten(classification.read(model(x)), y)
        right += int((~wrong).sum())
        if attack is not None:
            beaten += int(attack(model, x, y, seed=seed, ids=ids, search="first").beaten.sum())
    count = max(len(split), 1)
    return Validation(right / count, None if attack is None else 1 - beaten / count)
