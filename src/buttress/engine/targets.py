"""What an attacker wants: one target for all inputs, one for each, or a rule that chooses classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.tasks import Task

TargetRule = Literal["least_likely", "random"]
Target = Tensor | Sequence[int] | Sequence[float] | float | TargetRule

log = logging.getLogger(__name__)
_WANTED = 'a class, or one for each input, as integers; "least_likely" or "random"'


def given_target(target: Target, x: Tensor, y: Tensor, task: Task) -> Tensor | TargetRule:
    """The target of each input: one for all is repeated for each of them; a rule comes back as it is.

    Args:
        target: what the user gave: one for each input, as ``y``, or one for all, as a row of ``y``.
        x: (N, ...) inputs.
        y: the truth, of which a target has the form: (N,), (N, L), ...
        task: what the output is for.

    Returns:
        (N,) int64 classes, or what else the task has as its truth, such as label sets (N, L); on the device of ``x``,
        a copy.

    Raises:
        UserError: saying what came, and what may.
    """
    wanted = _WANTED if task.classes else f"a tensor in the form of the truth, or of a row of it, for {task.label()}"
    if isinstance(target, str) and not task.classes:
        raise UserError(f"target={target!r} chooses classes, which {task.label()} has not: use a tensor")
    if isinstance(target, str):
        if target not in get_args(TargetRule):
            raise UserError(f"target must be {_WANTED}; got {target!r}")
        return target
    try:
        values = torch.as_tensor(target).detach()
    except (TypeError, ValueError, RuntimeError):  # torch refuses in all of these
        raise UserError(f"target must be {wanted}; got {_shown(target)}") from None
    if values.is_complex() or (task.classes and (values.dtype == torch.bool or values.is_floating_point())):
        raise UserError(f"target must be {wanted}; got {_shown(target)}")
    if not values.dim() or values.shape == y.shape[1:]:
        values = values.expand(len(x), *values.shape)
    if len(values) != len(x):
        raise UserError(f"{len(x)} inputs need as many targets; got {len(values)}")
    return values.to(x.device, torch.int64 if task.classes else values.dtype, copy=True)


def chosen_target(rule: TargetRule, clean: Tensor, y: Tensor, seed: int, ids: Tensor) -> Tensor:
    """(N,) classes other than the truth.

    Args:
        rule: "least_likely" by the clean output, or "random".
        clean: (N, C) outputs for the unperturbed inputs.
        y: (N,) the truth.
        seed: of the call.
        ids: (N,) what identifies each input.
    """
    if rule == "least_likely":
        return clean.scatter(1, y[:, None], torch.inf).argmin(1)
    return (y + 1 + Random(derive(seed, "target"), ids).integers(clean.shape[1] - 1)) % clean.shape[1]


def warn_of_own_class(target: Tensor, y: Tensor) -> None:
    """Say how many inputs are of the class that they are to be led to, for these count as successes as they are."""
    own = int((target == y).sum()) if target.dim() == y.dim() == 1 else 0
    if own:
        log.warning(
            "the target of %d of the %d inputs is their own class; what the model gets right succeeds", own, len(y)
        )


def _shown(target: object) -> str:
    if isinstance(target, Tensor):
        return f"{target.dtype} of shape {tuple(target.shape)}"
    text = repr(target)
    return text if len(text) <= 60 else f"{text[:57]}..."
