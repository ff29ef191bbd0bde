"""Clean and robust accuracy on the validation split, by which the best weights are chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Split
from buttress.defences.base.defence import Defence
from buttress.engine.preserved_model import preserved
from buttress.model_call import call_model
from buttress.tasks import classification
from buttress.training.batches import input_dtype

_BATCH = 256


@dataclass(frozen=True)
class Validation:
    """Accuracies in [0, 1]; ``robust`` is None where nothing attacks.

    ``worst`` is that of the class with the lowest: robust accuracy, or clean accuracy where nothing attacks.
    """

    clean: float
    robust: float | None
    worst: float = 0.0

    @property
    def rank(self) -> tuple[float, float]:
        """What is compared: robust accuracy first, clean accuracy second."""
        return (self.clean if self.robust is None else self.robust, self.clean)


def default_attack(defence: Defence) -> Perturbation | None:
    """PGD-10 in the threat that the defence trains against; None for one that trains against nothing."""
    threat = None if defence.attack is None else defence.attack.within().threat
    return None if threat is None else PGD(threat=threat, steps=10)


def check_outputs(model: nn.Module, split: Split, device: torch.device) -> None:
    """One pass in eval mode over an input of the lowest and one of the highest class; it leaves no trace.

    Raises:
        UserError: when the output is not logits for all classes of ``split``.
    """
    x, y, _ = (part.to(device) for part in split.take(torch.stack([split.y.argmin(), split.y.argmax()])))
    with preserved(model, "eval", 0, device), torch.no_grad():
        classification.check(classification.read(call_model(model, x.to(input_dtype(model)))), y)


def validate(
    model: nn.Module, split: Split, attack: Perturbation | None, seed: int, device: torch.device
) -> Validation:
    """Accuracy on ``split``, clean and under ``attack``; the same draws every time, so epochs can be compared."""
    dtype = input_dtype(model)
    clean_parts: list[Tensor] = []
    robust_parts: list[Tensor] = []
    for start in range(0, len(split), _BATCH):
        index = torch.arange(start, min(start + _BATCH, len(split)))
        x, y, ids = (part.to(device) for part in split.take(index))
        x = x.to(dtype)
        with preserved(model, "eval", seed, device), torch.no_grad():
            clean_parts.append(~classification.is_adversarial(classification.read(call_model(model, x)), y).cpu())
        if attack is not None:
            robust_parts.append(~attack(model, x, y, seed=seed, ids=ids, search="first").success.cpu())
    clean, robust = torch.cat(clean_parts), torch.cat(robust_parts) if robust_parts else None
    judged = clean if robust is None else robust
    return Validation(_share(clean), None if robust is None else 1 - _share(~robust), _worst(judged, split.y.cpu()))


def _share(rows: Tensor) -> float:
    return int(rows.sum()) / len(rows)


def _worst(right: Tensor, y: Tensor) -> float:
    """The lowest share of any class that there is."""
    return min(_share(right[y == label]) for label in set(y.tolist()))
