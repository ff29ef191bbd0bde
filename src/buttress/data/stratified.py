"""Stratified samples: which rows to take so that class proportions are kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.random import generator


def stratified_counts(sizes: Tensor, total: int) -> Tensor:
    """How many rows each class gives to a sample of ``total`` rows.

    Every class gives its exact share rounded down or up (largest remainders), and at least one row where ``total``
    is large enough for all classes that have any.

    Args:
        sizes: rows of each class, int64, shape (classes,).
        total: rows wanted, at most the sum of ``sizes``.
    """
    present = sizes > 0
    share = sizes * total  # in units of 1 / sum(sizes): integers, so that ties are exact
    rows = int(sizes.sum())
    counts = share // rows
    least = (present & (total >= int(present.sum()))).long()
    counts = torch.maximum(counts, least)
    while int(counts.sum()) < total:
        counts[(share - counts * rows).argmax()] += 1
    while int(counts.sum()) > total:
        excess = (counts * rows - share).masked_fill(counts <= least, -rows * rows)
        counts[excess.argmax()] -= 1
    return counts


def stratified_index(y: Tensor, total: int, seed: int) -> Tensor:
    """The rows of a stratified random sample without replacement, in ascending order.

    Args:
        y: class labels, int64, shape (N,); of several labels, (N, L), each set of labels is a class; values, float32,
            are one.
        total: rows wanted.
        seed: the same seed gives the same rows.

    Returns:
        int64, shape (total,).

    Raises:
        UserError: when ``total`` is not between 0 and N.
    """
    if not 0 <= total <= len(y):
        raise UserError(f"expected a sample of 0 to {len(y)} inputs, got {total}; ask for fewer")
    if total == len(y):
        return torch.arange(len(y))
    classes = torch.zeros(len(y), dtype=torch.int64) if y.is_floating_point() else y
    _, inverse, sizes = (
        torch.from_numpy(part).flatten()
        for part in np.unique(classes.numpy(), return_inverse=True, return_counts=True, axis=0)
    )
    counts = stratified_counts(sizes, total)
    shuffled = torch.randperm(len(y), generator=generator(seed, "stratified"))
    by_class = shuffled[inverse[shuffled].argsort(stable=True)]
    starts = sizes.cumsum(0) - sizes
    rank = torch.arange(len(y)) - starts.repeat_interleave(sizes)
    return by_class[rank < counts.repeat_interleave(sizes)].sort().values


def divided_index(y: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The rows that are left, and those of a stratified sample of ``count`` that is split off, both ascending.

    Raises:
        UserError: when either part would be empty.
    """
    if not 1 <= count < len(y):
        raise UserError(f"expected to split off 1 to {len(y) - 1} of {len(y)} inputs, got {count}")
    index = stratified_index(y, count, seed)
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[index] = False
    return rest.nonzero().flatten(), index
