"""The range that inputs live in, one for all features or for each its own, and values by feature in general."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from buttress.errors import UserError


class FeatureValues:
    """One value for each feature of an input, equal and hashed by value, so that settings which hold it are, too.

    Attributes:
        values: float64 or bool, on the CPU, of a shape that one input's shape can be broadcast with.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.detach().cpu().clone()

    @staticmethod
    def read(name: str, value: object, dtype: torch.dtype) -> FeatureValues:
        """A setting's tensor, array or nested list.

        Raises:
            UserError: for what is no tensor of numbers, and NaN.
        """
        if isinstance(value, FeatureValues):
            return value
        try:
            values = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"{name} must be a tensor of one input's shape; got {value!r}") from None
        if (dtype == torch.bool) != (values.dtype == torch.bool) or bool(values.isnan().any()) or not values.numel():
            kind = "true and false" if dtype == torch.bool else "numbers"
            raise UserError(f"{name} must be a tensor of {kind}, of one input's shape; got {tuple(values.shape)}")
        return FeatureValues(values.to(dtype))

    def to(self, like: Tensor) -> Tensor:
        """The values on the device of ``like``; numbers in its dtype."""
        return self.values.to(like.device, torch.bool if self.values.dtype == torch.bool else like.dtype)

    def check(self, name: str, x: Tensor) -> None:
        """Refuse inputs that these values are not for.

        Raises:
            UserError: naming the setting, its shape and that of one input.
        """
        shape, needed = tuple(self.values.shape), tuple(x.shape[1:])
        aligned = zip(reversed(shape), reversed(needed), strict=False)
        if len(shape) <= len(needed) and all(mine in (1, theirs) for mine, theirs in aligned):
            return
        raise UserError(f"{name} by feature has shape {shape}, one input has {needed}: give a tensor of that shape")

    def plain(self) -> Any:
        """Nested lists, for JSON."""
        return self.values.tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureValues) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        """As in "0.01 to 0.1 by feature", or "12 of 40 features fixed" of a mask."""
        if self.values.dtype == torch.bool:
            return f"{int((~self.values).sum())} of {self.values.numel()} features fixed"
        return f"{float(self.values.min()):.4g} to {float(self.values.max()):.4g} by feature"

    def _key(self) -> tuple[Any, ...]:
        return self.values.dtype, self.values.shape, self.values.numpy().tobytes()


End = float | FeatureValues
Ends = tuple[float | Tensor, float | Tensor]  # what a user gives


class Box(tuple[Any, Any]):
    """A pair (low, high), each a number or `FeatureValues`; either end may be infinite. Equal to a plain pair."""

    def __new__(cls, ends: Iterable[End]) -> Self:
        """Of two ends; see `read` for what a user gives."""
        return super().__new__(cls, ends)

    @staticmethod
    def read(value: object) -> Box | None:
        """A setting's (low, high): numbers, or tensors of one value for each feature; None for no limit.

        Raises:
            UserError: for anything else, and a box that is empty. A single feature's ends may be the same.
        """
        if value is None or isinstance(value, Box):
            return value
        wrong = UserError(f"box must be (low, high) with low < high, or none; got {value!r}")
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise wrong
        try:
            box = Box(_end(end) for end in value)
            low, high = (_tensor(end) for end in box)
            apart = (
                (low < high) if low.dim() == high.dim() == 0 else (low <= high) & (low < math.inf) & (high > -math.inf)
            )
        except (UserError, TypeError, ValueError, RuntimeError):  # no numbers, or shapes that do not fit
            raise wrong from None
        if not bool(apart.all()):
            raise wrong
        return box

    @property
    def uniform(self) -> bool:
        """Whether the range is that of all features."""
        return not any(isinstance(end, FeatureValues) for end in self)

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high in the dtype of ``like``, as clamping in it reaches them, and on its device."""
        low, high = (_tensor(end).to(like.device, like.dtype) for end in self)
        return low, high

    def clip(self, x: Tensor) -> Tensor:
        """``x`` (N, ...) put back into the box, coordinate by coordinate."""
        return x.clamp(self[0], self[1]) if self.uniform else x.clamp(*self.ends(x))

    def holds(self, x: Tensor) -> bool:
        """Whether all values of ``x`` (N, ...) are in the box."""
        low, high = self.ends(x)
        return bool(((x >= low) & (x <= high)).all())

    def check(self, x: Tensor) -> None:
        """Refuse inputs of another shape than the features', and values outside.

        Raises:
            UserError: naming the shapes, or the feature and its range.
        """
        for end in self:
            if isinstance(end, FeatureValues):
                end.check("box", x)
        low, high = self.ends(x)
        outside = ((x < low) | (x > high)).flatten(1).any(0).nonzero()
        if len(outside):
            feature, values = int(outside[0]), x.flatten(1)[:, int(outside[0])]
            low, high = (end.expand(x.shape[1:]).flatten()[feature] for end in (low, high))
            got = f"{float(values.min()):.4g} to {float(values.max()):.4g}"
            raise UserError(
                f"inputs must lie in the box; feature {feature} of a flattened input must be from {float(low):.4g} to "
                f"{float(high):.4g}; got {got}: scale the inputs, or set the box of the data"
            )

    def widths(self) -> Tensor:
        """float64 widths, 0-dimensional or of one value for each feature; infinite where an end is."""
        low, high = (_tensor(end) for end in self)
        return high - low

    def plain(self) -> list[Any]:
        """[low, high] for JSON."""
        return [end.plain() if isinstance(end, FeatureValues) else end for end in self]

    def __repr__(self) -> str:
        return repr(tuple(self))


def _end(value: object) -> End:
    if isinstance(value, bool):
        raise TypeError("no number")
    if isinstance(value, int | float) or (isinstance(value, Tensor) and value.dim() == 0):
        return float(value)
    return FeatureValues.read("box", value, torch.float64)


def _tensor(end: End) -> Tensor:
    return end.values if isinstance(end, FeatureValues) else torch.tensor(end, dtype=torch.float64)
