"""What to do about a training whose numbers have become too large for their precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from torch import Tensor

from buttress.defences.base.defence import Defence
from buttress.training.config import TrainingConfig

_LARGE = 100.0  # no method's default is as large
_LARGE_INPUTS = 1000.0  # standardised ones and those of images are far below, numbers of a table as they come are not
_CHECKED_ABOVE = 1e6  # a loss; below it gradients whose squares overflow are not to be expected
_CLIPPED = 1.0  # the gradient's norm where none was asked for


def remedy(defence: Defence, config: TrainingConfig, x: Tensor | None = None, *, updated: bool = True) -> str:
    """What to type: the first of large weights of the objective's terms, large inputs, the start, and large steps.

    Args:
        defence: the training method.
        config: how is trained.
        x: (B, ...) the inputs of the step, where it is one that failed.
        updated: whether any weight has been changed; before that the learning rate has no part in it.
    """
    large = [f"{name} ({value:g})" for name, value in _numbers(defence) if math.isfinite(value) and abs(value) > _LARGE]
    if large:
        return f"{' and '.join(large)} is too large: give a smaller one"
    largest = 0.0 if x is None or not x.numel() else float(x.detach().abs().max())
    if largest > _LARGE_INPUTS:
        return f"the inputs reach {largest:.3g}: scale them to [0, 1], or standardise them"
    if not updated:
        return "no weight is changed yet: look at the initial weights, and at what the network's forward computes"
    lr, clip = config.optimiser.lr, config.clip
    smaller = _CLIPPED if clip is None else clip / 10
    return f"lower the learning rate (--optimiser.lr {lr / 10:g}, now {lr:g}) or clip the gradient (--clip {smaller:g})"


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
