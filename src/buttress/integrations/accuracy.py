"""Clean and robust accuracy of a network in another tool's training, as it reports them epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.data.batches import read_batches
from buttress.data.dataset import Dataset
from buttress.errors import UserError
from buttress.tasks import Task
from buttress.training.validation import right_in_batches
from buttress.validation import whole


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """What is measured; see `measure`.

    Args:
        data: a data set, of which the validation split counts; a split; or batches such as a ``DataLoader`` gives,
            the same ones in the same order every time.
        attack: PGD-10 in its own threat, linf 8/255, unless given.
        limit: the first so many inputs.
        seed: of the attack: the same draws every time, so that epochs can be compared.
        task: what the network's output is for.
    """

    data: Any
    attack: Perturbation | None = None
    limit: int = 500
    seed: int = 0
    task: Task = tasks.classification

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("limit", self.limit)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Shares of right outputs, ``clean_accuracy`` and ``robust_accuracy``; the network comes back as it was.

        Raises:
            UserError: for data without inputs, and what the attack refuses.
        """
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        attack = self.attack or PGD(steps=10)
        with torch.inference_mode(False):  # a tool may validate in it, where there are no gradients
            clean, robust = right_in_batches(model, self._batches(), attack, self.seed, device, self.task)
        assert robust is not None  # since there is an attack
        shares = {"clean_accuracy": clean, "robust_accuracy": robust}
        return {name: float(right.double().mean()) for name, right in shares.items()}

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        seen = 0
        for x, y in read_batches(self.data.val if isinstance(self.data, Dataset) else self.data):
            x, y = x[: self.limit - seen], y[: self.limit - seen]
            yield x, y, torch.arange(seen, seen + len(x))
            seen += len(x)
            if seen == self.limit:
                return
        if not seen:
            raise UserError("robust accuracy needs inputs; the data gave none")
