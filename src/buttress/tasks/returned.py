"""What methods of a task return for some outputs: held against what a task of a user's own returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def one_verdict_each(value: Tensor, task: Any, output: Tensor, *_: Any) -> str:
    """What was expected, where these are no bools, one for each output; else empty."""
    right = value.dtype == torch.bool and value.shape == output.shape[:1]
    return "" if right else f"bool of shape ({len(output)},), one for each input"


def one_number_each(value: Tensor, task: Any, output: Tensor, *_: Any) -> str:
    """What was expected, where these are no finite numbers, one for each output; else empty."""
    right = value.is_floating_point() and value.shape == output.shape[:1] and bool(value.isfinite().all())
    return "" if right else f"finite numbers of shape ({len(output)},), one for each input"


def one_number(value: Tensor, *_: Any) -> str:
    """What was expected, where this is no tensor of one real number; else empty."""
    return "" if value.is_floating_point() and value.dim() == 0 else "one number, a tensor of shape ()"


def rows(value: Tensor, task: Any, output: object) -> str:
    """What was expected, where this is no real output with a row for each input; else empty."""
    count = len(output) if isinstance(output, Tensor) and output.dim() else len(value) if value.dim() else 0
    right = value.is_floating_point() and value.dim() > 0 and len(value) == count
    return "" if right else "real numbers, a row for each input"
