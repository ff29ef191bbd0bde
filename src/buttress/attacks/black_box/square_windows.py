"""The windows that Square changes: how large, where, and the pattern that goes into them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the queries, of 10 000, after which the share halves


def share_at(query: int, p: float, queries: int, rescale: bool) -> float:
    """The share of the image that the window of this query (counted from 0) covers.

    Args:
        query: from 0.
        p: the first share.
        queries: in all.
        rescale: whether the schedule, made for 10 000 queries, is stretched over ``queries``.
    """
    at = int(query / queries * 10_000) if rescale else query
    return float(p / 2 ** sum(at > halving for halving in _HALVINGS))


def window_size(share: float, height: int, width: int, *, least: int = 1, odd: bool = False) -> tuple[int, int]:
    """Rows and columns of a window that covers this share of the image.

    It is square where it fits. In an image too narrow for that it is as wide as the image and so much the longer, so
    that features, as an image of one row, have windows too.

    Args:
        share: of the pixels.
        height: of the image.
        width: of the image.
        least: the smallest side.
        odd: make an even side of a square one longer.
    """
    side = max(round(math.sqrt(share * height * width)), least)
    side += int(odd and side % 2 == 0)
    short = min(height, width)
    if side <= short:
        return side, side
    long = min(max(round(share * height * width / short), short, least), max(height, width))
    return (short, long) if height <= width else (long, short)


@dataclass(frozen=True)
class Windows:
    """One window per image, (N,) of one size, each at its own place.

    Attributes:
        index: picks the windows (N, C, rows, columns) out of images (N, C, H, W).
    """

    index: tuple[Tensor, Tensor, Tensor, Tensor]

    @staticmethod
    def at(chance: Tensor, size: tuple[int, int], images: Tensor) -> Windows:
        """Windows at random places.

        Args:
            chance: (N, 2) uniform in [0, 1), for the top row and the left column.
            size: rows and columns.
            images: (N, C, H, W).
        """
        count, channels, height, width = images.shape
        device = images.device
        rows = (chance[:, 0] * (height - size[0] + 1)).long()[:, None] + torch.arange(size[0], device=device)
        columns = (chance[:, 1] * (width - size[1] + 1)).long()[:, None] + torch.arange(size[1], device=device)
        images_at = torch.arange(count, device=device).view(-1, 1, 1, 1)
        channels_at = torch.arange(channels, device=device).view(1, -1, 1, 1)
        return Windows((images_at, channels_at, rows[:, None, :, None], columns[:, None, None, :]))


def bump(rows: int, columns: int, norm: str) -> Tensor:
    """(rows, columns) float64 the pattern of the L2 and L1 attacks, of length 1 in the norm.

    Two halves of opposite sign, one above the other, or side by side where the window is wider than high; each falls
    off from its centre in nested squares.
    """
    if columns > rows:
        return bump(columns, rows, norm).T
    half = rows // 2
    parts = [_hill(half, columns, norm)] if half else []
    whole = torch.cat([*parts, -_hill(rows - half, columns, norm)])
    return _unit(whole, norm)


def _hill(rows: int, columns: int, norm: str) -> Tensor:
    """The sum over k of 1 / (k + 1)^2, in L1 ^4, on the square that reaches k away from the centre; of length 1."""
    hill, power = torch.zeros(rows, columns, dtype=torch.float64), 2 if norm == "l2" else 4
    top, left = rows // 2, columns // 2
    for k in range(max(top, left) + 1):
        hill[max(top - k, 0) : top + k + 1, max(left - k, 0) : left + k + 1] += 1 / (k + 1) ** power
    return _unit(hill, norm)


def _unit(pattern: Tensor, norm: str) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(pattern, 2 if norm == "l2" else 1)
    return pattern / size


@dataclass(frozen=True)
class Grid:
    """The start's ``down`` x ``across`` tiles of ``rows`` x ``columns``, the first of them at ``top`` and ``left``."""

    top: int
    left: int
    rows: int
    columns: int
    down: int
    across: int

    @staticmethod
    def of(height: int, width: int) -> Grid:
        """As released: square tiles, a fifth of the height a side (rounded down), as many as there is room for.

        The first lies as far from the top and the left as would centre five of them down the image, and tiles that
        would stick out are left out. An image of less than five rows, or too narrow for such a tile, which the release
        has no rule for, gets up to 5 x 5 rectangles of a fifth of each side in its middle.
        """
        side = height // 5
        if 1 <= side <= width:
            start = (height - 5 * side) // 2
            down, across = ((length - start) // side for length in (height, width))
            if across:
                return Grid(start, start, side, side, down, across)
        rows, columns = max(height // 5, 1), max(width // 5, 1)
        down, across = min(5, height // rows), min(5, width // columns)
        return Grid((height - down * rows) // 2, (width - across * columns) // 2, rows, columns, down, across)

    def filled(self, patterns: Tensor, height: int, width: int) -> Tensor:
        """(N, C, H, W) with a pattern (N, C, down, across, rows, columns) in each tile, and zeros around them."""
        image = patterns.new_zeros(*patterns.shape[:2], height, width)
        below, right = self.top + self.down * self.rows, self.left + self.across * self.columns
        image[:, :, self.top : below, self.left : right] = patterns.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return image
