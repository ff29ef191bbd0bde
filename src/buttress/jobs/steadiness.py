"""Whether a network gives the same answer to the same input, whatever else it is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.audits import Subject
from buttress.engine.preserved_model import preserved
from buttress.model_call import half_precision
from buttress.models import forward_checked

_INPUTS = 16
_SAME, _SAME_IN_HALF = 1e-3, 5e-2  # differences to the largest output, which kernels for other batches may make


def unsteadiness(about: Subject) -> str:
    """A sentence on a network whose answers change from call to call, or with the other inputs of a batch; else empty.

    Such are dropout that is on in eval mode too (``F.dropout`` without ``training=self.training``), a state that is
    kept between calls, and BatchNorm that is in train mode in eval too, or has no running statistics.

    Args:
        about: the network and its inputs.
    """
    x = about.x[:_INPUTS]
    if len(x) < 2:
        return ""
    half = len(x) // 2
    with preserved(about.model, "eval", about.seed, x.device), torch.no_grad():
        first, again, part = (about.task.read(forward_checked(about.model, batch)) for batch in (x, x, x[:half]))
    same = _SAME if half_precision(about.model) is None else _SAME_IN_HALF
    if _differ(first, again, same):
        return (
            "The network answers differently when it is asked again about the same inputs, in eval mode: dropout or "
            "another noise is on (F.dropout needs training=self.training), or it keeps a state; figures are those of "
            "one draw."
        )
    if _differ(first[:half], part, same):
        return (
            "What the network answers for an input depends on the others in its batch, in eval mode, as by BatchNorm "
            "that stays in train mode or has no running statistics: figures are those of this batch size."
        )
    return ""


def _differ(one: Tensor, other: Tensor, same: float) -> bool:
    return bool((one - other).abs().max() > same * one.abs().max())
