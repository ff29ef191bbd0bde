"""Sequences of tokens as training data: kept as integers, read as the values that an embedding has for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.data.dataset import Split


@dataclass(frozen=True, eq=False, repr=False)
class TokenSplit(Split):
    """Tokens (N, T), read as values (N, T, D), anew each time, since training moves the embedding.

    Args:
        x: whole numbers from 0 on, float32, shape (N, T).
        y: as in `Split`.
        ids: as in `Split`.
        values: (N, T) int64 tokens to their (N, T, D) values at present.
    """

    x: Tensor
    values: Callable[[Tensor], Tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, D)."""
        return tuple(self.read(self.x[:1]).shape[1:])

    def tokens(self, stored: Tensor) -> Tensor:
        """Some rows of ``x`` as int64."""
        return stored.long()

    def read(self, stored: Tensor) -> Tensor:
        """The present values of some rows of ``x``, without a gradient, where these rows are."""
        with torch.no_grad():
            return self.values(self.tokens(stored)).to(stored.device)

    def channel(self, index: int) -> Tensor:
        """All values at one place of the sequences."""
        return self.read(self.x[:, index : index + 1]).flatten()
