"""Where inputs live: the box, and the features that may change."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from buttress.threat.box import Box


class Region(ABC):
    """What a threat allows regardless of its budget: a mixin that reads the threat's own box and free features."""

    @property
    @abstractmethod
    def _box(self) -> Box | None:
        """The range of the inputs; None for no limit."""

    @abstractmethod
    def _free(self, like: Tensor) -> Tensor | None:
        """Bool, of one input's shape: the features that may change; None for all."""

    def free(self, values: Tensor) -> Tensor:
        """``values`` (..., *one input's shape), such as a gradient, with 0 for features that may not change."""
        free = self._free(values)
        return values if free is None else torch.where(free, values, 0)

    def free_features(self, x: Tensor) -> Tensor:
        """(D,) indices, in one flattened input, of the features that may change."""
        free = torch.ones(x.shape[1:], dtype=torch.bool, device=x.device)
        return self.free(free).flatten().nonzero().squeeze(1)

    def limits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest value that box and mask allow, in the dtype of ``x`` and to be broadcast with it.

        Infinite where nothing limits a feature; the value of ``x`` where it may not change.
        """
        if self._box is None:
            low, high = (x.new_tensor(end) for end in (-math.inf, math.inf))
        else:
            low, high = self._box.ends(x)
        free = self._free(x)
        return (low, high) if free is None else (torch.where(free, low, x), torch.where(free, high, x))

    def clip(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``x_adv`` put back into the box around ``x``, features that may not change as in ``x``; no look at eps."""
        x_adv = x_adv if self._box is None else self._box.clip(x_adv)
        free = self._free(x)
        return x_adv if free is None else torch.where(free, x_adv, x)

    def widths(self, like: Tensor) -> Tensor:
        """The unit of lengths along single features: the box's width; see `unit` where that is infinite.

        In the dtype of ``like``, 0-dimensional or of one input's shape.
        """
        if self._box is None:
            return like.new_tensor(1.0)
        widths = self._box.widths()
        return torch.where(widths.isfinite(), widths, self.unit).to(like.device, like.dtype)

    @property
    def unit(self) -> float:
        """The unit of lengths that are given in widths of the box.

        The width; of boxes by feature the root of the mean square, over the features with two finite ends; 1 where
        there is none, and without a box: input units.
        """
        if self._box is None:
            return 1.0
        widths = self._box.widths()
        finite = widths[widths.isfinite()]
        if self._box.uniform or not len(finite):
            return float(finite) if len(finite) else 1.0
        return float(finite.square().mean().sqrt()) or 1.0

    @property
    def widest(self) -> float:
        """The largest width of the box among the features that may change; infinite where one has no end."""
        return math.inf if self._box is None else float(self.free(self._box.widths()).max())

    @property
    def box_text(self) -> str:
        """The box in an error's words."""
        return "no box" if self._box is None else f"box {self._box}"
