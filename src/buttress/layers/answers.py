"""What replacing layers' values has shown, batch by batch; which layers have no answer, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from buttress.layers.attacked_batch import AttackedBatch
from buttress.layers.reached import OutputOf, leads, moves

_LOST = "does not move the output: the network goes on without its value, or with a copy"


class LayerAnswers:
    """The answers so far.

    No batch alone decides that a layer has none: an input may hide a layer that another one shows, as behind a maximum.

    Args:
        count: numbers for each layer and input.

    Attributes:
        leading: layers to which a gradient leads from the output.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.leading: set[str] = set()
        self._moving: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._parts: list[tuple[int, Mapping[str, Tensor]]] = []

    def add(self, inputs: int, found: Mapping[str, Tensor]) -> None:
        """A batch: the numbers (count, inputs) of each layer that has some."""
        self._parts.append((inputs, found))

    def note(self, name: str, reason: str) -> None:
        """Why a batch has no answer for a layer."""
        self._reasons.setdefault(name, reason)

    def note_obstacles(self, batch: AttackedBatch) -> None:
        """Why a batch has no value for each input of some layers."""
        for name, obstacle in batch.obstacles.items():
            self.note(name, obstacle.unmeasured)

    def of(self, name: str) -> Tensor:
        """(count, N) a layer's numbers, NaN for the inputs of batches that have none."""
        return torch.cat([found.get(name, torch.full((self.count, n), torch.nan)) for n, found in self._parts], 1)

    def of_all(self, names: Sequence[str]) -> Tensor:
        """(L, count, N) the numbers of L layers."""
        total = sum(n for n, _ in self._parts)
        return torch.stack([self.of(name) for name in names]) if names else torch.zeros(0, self.count, total)

    def look(self, name: str, output_of: OutputOf, clean: Tensor, attacked: Tensor, *, gradient: bool = False) -> None:
        """See whether the output moves with a layer, and if asked for whether a gradient leads there; see `moves`.

        Raises:
            CannotReplaceError: where that cannot be told.
        """
        if gradient and name not in self.leading and leads(output_of, clean):
            self.leading.add(name)
            self._moving.add(name)
        if name not in self._moving and moves(output_of, clean, attacked):
            self._moving.add(name)

    def obstacle(self, name: str) -> str:
        """Why a layer has no answer; empty where it has one, or where its value is nothing for every input."""
        if not any(name in found and not _nothing(found[name]) for _, found in self._parts):
            return self._reasons.get(name, "")
        return "" if name in self._moving else _LOST


def _nothing(numbers: Tensor) -> bool:
    """Whether the first number is NaN for every one of the inputs, if there are any."""
    return bool(numbers.shape[1]) and bool(numbers[0].isnan().all())
