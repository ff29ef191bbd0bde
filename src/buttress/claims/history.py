"""The history of a training, as claims read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from buttress.claims.experiment import Figure
from buttress.errors import UserError
from buttress.registry import nearest

History = list[dict[str, float | None]]

PARTS = ("last", "best", "drop")


def finite(history: Sequence[Mapping[str, float]]) -> History:
    """A row of figures for each epoch, None for what is no finite number."""
    return [{key: float(value) if math.isfinite(value) else None for key, value in row.items()} for row in history]


def of_history(figure: Figure, history: Sequence[Mapping[str, float]]) -> float:
    """The last value of a figure over the epochs, its best, or how far the last is below the best.

    Raises:
        UserError: when the history does not have the figure.
    """
    known = sorted({key for row in history for key in row})
    if figure.history not in known:
        raise UserError(f"claim: figures: no {figure.history!r} in the history; {nearest(figure.history, known)}")
    values = [row[figure.history] for row in history if figure.history in row]
    last, best = values[-1], max(values)
    return figure.times * {"last": last, "best": best, "drop": best - last}[figure.path]
