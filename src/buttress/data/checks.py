"""What inputs and their truth must be: labels, values and numbers inside the box."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from buttress.errors import UserError
from buttress.tasks.task import length_hint
from buttress.threat.box import Box


class Described(Protocol):
    """A tensor, or what stands for one."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""

    @property
    def shape(self) -> torch.Size:
        """Its axes."""


_OTHER_FLOATS = (torch.float64, torch.float16, torch.bfloat16)


def check_labels(y: Tensor | NDArray[Any], classes: int, where: str) -> None:
    """Refuse labels outside 0 .. classes - 1.

    Args:
        y: integer labels, any shape.
        classes: how many classes there are.
        where: the file or split that the labels are from, for the error line.

    Raises:
        UserError: naming ``where`` and the first label that is out of range.
    """
    labels = np.asarray(y).ravel()
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise UserError(f"{where}: expected labels from 0 to {classes - 1}, got {labels[wrong[0]]} at input {wrong[0]}")


def check_truth(y: Tensor, count: int) -> None:
    """Refuse what is neither ``count`` class labels, nor rows of labels of 0 and 1, nor values.

    Raises:
        UserError: saying what came, and what to type where that is known.
    """
    values = y.dtype == torch.float32
    labels = y.dtype == torch.int64 and (y.ndim == 1 or (y.ndim == 2 and bool(((y == 0) | (y == 1)).all())))
    if y.shape[:1] != (count,) or not (values or labels):
        column = y.ndim == 2 and y.shape[1:] == (1,)
        hint = ": use y.squeeze(1)" if column else ": use y.float()" if y.dtype in _OTHER_FLOATS else ""
        hint = hint or (": use y.long()" if y.dtype not in (torch.int64, torch.float32) else "")
        raise UserError(
            f"expected labels of type int64 and shape ({count},), labels of 0 and 1 of shape ({count}, L), or values "
            f"of type float32, got {description(y)}{hint if y.shape[:1] == (count,) else length_hint(y, count)}"
        )
    if values and not bool(y.isfinite().all()):
        raise UserError("expected finite values y, got NaN or infinity; clean the data first")


def check_columns(y: Tensor, names: int, where: str) -> None:
    """Refuse class labels outside 0 .. names - 1, and rows of labels or values that are not one for each name.

    Raises:
        UserError: naming ``where`` and what came.
    """
    if y.ndim == 1 and not y.is_floating_point():
        check_labels(y, names, where)
    elif y.ndim <= 2 and (width := 1 if y.ndim == 1 else y.shape[1]) != names:
        raise UserError(f"{where}: expected as many names as labels or values per input, {width}, got {names}")


def as_float(x: Tensor) -> Tensor:
    """Inputs as a network takes them: bytes as shares of 255."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def description(x: Described) -> str:
    """Type and shape, for an error line."""
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"


def check_box(x: Tensor, box: tuple[float, float] | None, where: str) -> None:
    """Refuse inputs outside of the box.

    Raises:
        UserError: naming ``where``, and what came.
    """
    limits = Box.read(box)
    if box is None or limits is None or not len(x):
        return
    if not limits.uniform:
        try:
            limits.check(as_float(x))
        except UserError as reason:
            raise UserError(f"{where}: {reason}") from None
        return
    low, high = (0.0, 1.0) if x.dtype == torch.uint8 else (float(x.min()), float(x.max()))
    if low < box[0] or high > box[1]:
        raise UserError(f"{where}: expected values from {box[0]:g} to {box[1]:g}, got {low:g} to {high:g}")
