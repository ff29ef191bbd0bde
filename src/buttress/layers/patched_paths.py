"""Path patching: what a layer's clean value restores by way of one other layer alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.layers.attacked_batch import OUTPUT, AttackedBatch
from buttress.layers.known_layers import KnownLayers
from buttress.layers.measures import ratio, row_norms, to_rows
from buttress.layers.replacement import ReplacedPasses

Pair = tuple[str, str | None]


@dataclass(frozen=True)
class PatchedPath:
    """One direct path.

    Attributes:
        sender: the layer whose clean value is put in.
        receiver: the layer that alone sees it; None for the output.
        share: of ``inputs`` that are right again; NaN without any.
        inputs: how many beaten inputs call both layers.
    """

    sender: str
    receiver: str | None
    share: float
    inputs: int


@dataclass(frozen=True)
class _Seen:
    """A batch, the layers that could be patched in it, and how far each path takes its receiver: (beaten,)."""

    inputs: tuple[Tensor, Tensor, Tensor]
    beaten: int
    layers: frozenset[str | None]
    moved: dict[Pair, Tensor]

    def has(self, pair: Pair) -> bool:
        return self.layers.issuperset(pair)

    def strength(self, pair: Pair) -> Tensor:
        return self.moved.get(pair, torch.zeros(self.beaten))


class PathPatching:
    """Direct paths between layers, patched one at a time (path patching; Wang et al., ICLR 2023, section 3.1).

    A path from a sender to a receiver is direct where it meets none of the other layers. The receiver is given the
    value that it takes when the sender is clean and all other layers are as attacked; what follows the receiver runs
    on. In a chain only neighbours have a path, which restores what the sender does whole; with shortcuts the paths say
    by which of them an attack goes. All inputs together tell which paths there are, and the beaten ones which carry
    most; so these batches are kept until the end.

    Args:
        known: the layers.
        most: paths that are patched, those first whose receiver changes most, over what the attack changes there, in
            the median over inputs; last those whose receiver the attack leaves as it is, so that it has no such size.
    """

    def __init__(self, known: KnownLayers, most: int) -> None:
        self.known, self.most = known, most
        self._seen: list[_Seen] = []

    def add(self, batch: AttackedBatch, passes: ReplacedPasses, layers: Sequence[str]) -> None:
        """See which paths there are between these layers in one batch more."""
        if not self.most:
            return
        beaten = int(batch.beaten.sum())
        moved = {
            (sender, receiver): _moved(batch, receiver, value)
            for sender in layers
            for receiver, value in batch.direct(passes, sender).items()
        }
        self._seen.append(_Seen((batch.x, batch.x_adv, batch.y), beaten, frozenset((*layers, OUTPUT)), moved))

    def patched(self, layers: Sequence[str]) -> tuple[list[PatchedPath], int]:
        """The strongest paths between these layers, in order of execution; and how many there are besides."""
        every = {pair for seen in self._seen for pair in seen.moved if seen.has(pair)}
        pairs = [pair for sender in layers for receiver in (*layers, OUTPUT) if (pair := (sender, receiver)) in every]
        chosen = set(sorted(pairs, key=self._rank)[: self.most])
        right: dict[Pair, list[Tensor]] = {pair: [] for pair in pairs if pair in chosen}
        for seen in (seen for seen in self._seen if seen.beaten):
            for pair, part in _right(AttackedBatch(self.known, *seen.inputs), filter(seen.has, right)):
                right[pair].append(part)
        paths = [_path(pair, parts) for pair, parts in right.items()]
        return paths, len(pairs) - len(paths)

    def _rank(self, pair: Pair) -> float:
        """The less, the more the path carries."""
        median = float(torch.cat([seen.strength(pair) for seen in self._seen if seen.has(pair)]).nanmedian())
        return math.inf if math.isnan(median) else -median


def _moved(batch: AttackedBatch, receiver: str | None, value: Tensor) -> Tensor:
    """(beaten,) how far a value is from the attacked one, over how far the clean one is; NaN where that is nothing."""
    clean, attacked = batch.clean[receiver], batch.attacked[receiver]
    size = row_norms(to_rows(clean - attacked))
    return ratio(row_norms(to_rows(value - attacked)), size)[batch.beaten].cpu()


def _right(batch: AttackedBatch, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Tensor]]:
    """(beaten,) which inputs are right again by each path."""
    receivers: dict[str, list[str | None]] = {}
    for sender, receiver in pairs:
        receivers.setdefault(sender, []).append(receiver)
    with batch.replacing() as passes, torch.no_grad():
        for sender, reached in receivers.items():
            values = batch.direct(passes, sender)
            for receiver in reached:
                value = values.get(receiver, batch.attacked[receiver])
                right = batch.is_right(value) if receiver is OUTPUT else batch.right(passes, {receiver: value})
                yield (sender, receiver), right[batch.beaten].cpu()


def _path(pair: Pair, parts: list[Tensor]) -> PatchedPath:
    right = torch.cat([torch.zeros(0), *parts]).double()
    return PatchedPath(*pair, float(right.mean()), len(right))
