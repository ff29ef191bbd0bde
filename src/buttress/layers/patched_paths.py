"""Path patching: what a layer's clean value restores by way of one other layer alone."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.layers.patched_batch import OUTPUT, PatchedBatch

Pair = tuple[str, str | None]


@dataclass(frozen=True)
class PatchedPath:
    """One direct path.

    Attributes:
        sender: the layer whose clean value is put in.
        receiver: the layer that alone sees it; None for the output.
        share: of the beaten inputs that are right again; NaN without any.
    """

    sender: str
    receiver: str | None
    share: float


class PathPatching:
    """Direct paths between layers, patched one at a time (path patching; Wang et al., ICLR 2023, section 3.1).

    A path from a sender to a receiver is direct where it meets none of the other layers. The receiver is given the
    value that it takes when the sender is clean and all other layers are as attacked; what follows the receiver runs
    on. In a chain only neighbours have a path, which restores what the sender does whole; with shortcuts the paths say
    by which of them an attack goes. Which paths there are is seen in the first batch.

    Args:
        most: paths that are patched, those first whose receiver changes most, over what the attack changes there.
    """

    def __init__(self, most: int) -> None:
        self.most, self.left_out = most, 0
        self._right: dict[Pair, list[Tensor]] | None = None

    def add(self, batch: PatchedBatch, layers: Sequence[str]) -> None:
        """Patch the paths between these layers in one batch more."""
        if not self.most:
            return
        if self._right is None:
            strengths = {pair: size for sender in layers for pair, size in _strengths(batch, sender, layers)}
            strongest = sorted(strengths, key=lambda pair: -strengths[pair])[: self.most]
            self.left_out = len(strengths) - len(strongest)
            self._right = {pair: [] for pair in strengths if pair in strongest}
        for sender in dict.fromkeys(name for name, _ in self._right):
            if sender not in layers:
                continue  # these inputs do not call it
            received = batch.direct(sender)
            for receiver in (to for name, to in self._right if name == sender and (to is OUTPUT or to in layers)):
                value = received.get(receiver, batch.attacked[receiver])
                right = batch.is_right(value) if receiver is OUTPUT else batch.right({receiver: value})
                self._right[sender, receiver].append(right[batch.beaten].cpu())

    def paths(self, patched: Container[str]) -> list[PatchedPath]:
        """Of all batches, in order of execution, between the layers that could be patched."""
        return [
            PatchedPath(sender, receiver, float(torch.cat(right).double().mean()))
            for (sender, receiver), right in (self._right or {}).items()
            if sender in patched and (receiver is OUTPUT or receiver in patched)
        ]


def _strengths(batch: PatchedBatch, sender: str, layers: Sequence[str]) -> Iterator[tuple[Pair, float]]:
    """The direct paths of one layer: how far each takes its receiver, in units of the attack's displacement there."""
    received = batch.direct(sender)
    for receiver in (*layers, OUTPUT):
        if receiver in received:
            clean, attacked = batch.clean[receiver], batch.attacked[receiver]
            moved, by_attack = _sizes(received[receiver] - attacked), _sizes(clean - attacked)
            yield (sender, receiver), float((moved / by_attack).nan_to_num(0.0).median())


def _sizes(change: Tensor) -> Tensor:
    """(n,) float64 L2 norms, of layers with one number for each input too."""
    sizes: Tensor = torch.linalg.vector_norm(change.reshape(len(change), -1).double(), dim=1)
    return sizes
