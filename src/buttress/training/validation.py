"""Clean and robust accuracy on the validation split, by which the best weights are chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress import models, tasks
from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Split
from buttress.defences.base.defence import Defence
from buttress.engine.input_dtype import input_dtype
from buttress.engine.preserved_model import preserved
from buttress.model_call import call_model
from buttress.tasks import Task

_BATCH = 256


@dataclass(frozen=True)
class Validation:
    """Shares of right outputs (accuracies) in [0, 1]; ``robust`` is None where nothing attacks.

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


def check_outputs(model: nn.Module, split: Split, device: torch.device, task: Task) -> None:
    """One pass in eval mode over an input of the lowest and one of the highest class; it leaves no trace.

    Where there is not one class per input, over some inputs spread evenly.

    Raises:
        UserError: when the output does not fit the truth of ``split``.
    """
    y = split.y
    spread = torch.linspace(0, len(y) - 1, min(_BATCH, len(y))).long()
    rows = spread if y.dim() != 1 or y.is_floating_point() else torch.stack([y.argmin(), y.argmax()])
    x, y, _ = (part.to(device) for part in split.take(rows))
    with preserved(model, "eval", 0, device), torch.no_grad():
        task.check(task.read(models.forward_checked(model, x.to(input_dtype(model, x)))), y)


def validate(
    model: nn.Module,
    split: Split,
    attack: Perturbation | None,
    seed: int,
    device: torch.device,
    task: Task = tasks.classification,
) -> Validation:
    """Accuracy on ``split``, clean and under ``attack``; the same draws every time, so epochs can be compared."""
    clean, robust = right_inputs(model, split, attack, seed, device, task)
    judged = clean if robust is None else robust
    return Validation(_share(clean), None if robust is None else 1 - _share(~robust), _worst(judged, split.y.cpu()))


def right_inputs(
    model: nn.Module, split: Split, attack: Perturbation | None, seed: int, device: torch.device, task: Task
) -> tuple[Tensor, Tensor | None]:
    """(N,) bool which inputs are right, clean; and under ``attack``, None where nothing attacks."""
    starts = range(0, len(split), _BATCH)
    batches = (split.take(torch.arange(start, min(start + _BATCH, len(split)))) for start in starts)
    return right_in_batches(model, batches, attack, seed, device, task)


def right_in_batches(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    attack: Perturbation | None,
    seed: int,
    device: torch.device,
    task: Task,
) -> tuple[Tensor, Tensor | None]:
    """As `right_inputs`, of batches (inputs, labels, ids)."""
    dtype: torch.dtype | None = None
    clean_parts: list[Tensor] = []
    robust_parts: list[Tensor] = []
    for batch in batches:
        dtype = dtype or input_dtype(model, batch[0][:2])
        x, y, ids = (part.to(device) for part in batch)
        x = x.to(dtype)
        with preserved(model, "eval", seed, device), torch.no_grad():
            clean_parts.append(~task.is_adversarial(task.read(call_model(model, x)), y).cpu())
        if attack is not None:
            robust_parts.append(~attack(model, x, y, task=task, seed=seed, ids=ids, search="first").success.cpu())
    return torch.cat(clean_parts), torch.cat(robust_parts) if robust_parts else None


def _share(rows: Tensor) -> float:
    return int(rows.sum()) / len(rows)


def _worst(right: Tensor, y: Tensor) -> float:
    """The lowest share of any class that there is; of all inputs where there is not one class for each."""
    if y.dim() != 1 or y.is_floating_point():
        return _share(right)
    return min(_share(right[y == label]) for label in set(y.tolist()))
