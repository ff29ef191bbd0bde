"""What to do about a training whose numbers have become too large for their precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from torch import Tensor

from buttress.defences.base.defence import Defence

USUAL_REMEDY = "lower the learning rate or clip the gradient"
_LARGE = 100.0  # no method's default is as large
_CHECKED_ABOVE = 1e6  # a loss; below it gradients whose squares overflow are not to be expected


def remedy(defence: Defence) -> str:
    """What to type: smaller weights of the objective's terms where some are large, else the usual."""
    large = [f"{name} ({value:g})" for name, value in _numbers(defence) if math.isfinite(value) and abs(value) > _LARGE]
    return f"{' and '.join(large)} is too large: give a smaller one" if large else USUAL_REMEDY


def overflows(loss: float, gradients: Iterable[Tensor]) -> bool:
    """Whether the square of a gradient is too large for its precision: Adam's step is 0 then, and a norm infinite."""
    return abs(loss) > _CHECKED_ABOVE and not all(bool(part.square().sum().isfinite()) for part in gradients)


def _numbers(defence: Defence) -> Iterator[tuple[str, float]]:
    """The names and values of a method's settings that are no whole numbers, and of the methods inside."""
    for name, setting in defence.settings().items():
        if isinstance(setting, Defence):
            yield from _numbers(setting)
        else:
            several = setting if isinstance(setting, list | tuple) else (setting,)
            yield from dict.fromkeys((name, value) for value in several if isinstance(value, float))
