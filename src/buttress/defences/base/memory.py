"""What methods remember from step to step, in buffers, so that it is resumed: counts by class, figures by input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress.data.dataset import Split


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


class Rows(nn.Module):
    """Which row of the training split an input is, by its id: for methods that remember something of each example.

    Args:
        split: the training split.
    """

    ids: Tensor
    order: Tensor

    def __init__(self, split: Split) -> None:
        super().__init__()
        ids, order = split.ids.sort()
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("order", order, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(N,) positions in the split of the inputs with these ids."""
        return self.order[torch.searchsorted(self.ids, ids)]
