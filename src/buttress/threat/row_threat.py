"""A threat whose budget differs from input to input."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.float64 import lacks_float64
from buttress.random import Random
from buttress.threat import Threat
from buttress.threat.geometry import per_row


@dataclass(frozen=True, kw_only=True, init=False, repr=False)
class RowThreat(Threat):
    """A threat whose budget differs from input to input, for training methods that give each example its own.

    It is about the inputs of one batch, in their order: attacks that set some of them aside cannot use it.

    Args:
        scale: (N,) share of ``eps`` that each input's perturbation may have, 0 or more; steps and random starts shrink
            by it, too.
        settings: those of a `Threat`.

    Raises:
        UserError: when ``eps`` is infinite.
    """

    scale: Tensor = field(default_factory=lambda: torch.ones(1), compare=False)

    def __init__(self, *, scale: Tensor, **settings: Any) -> None:
        super().__init__(**settings)
        object.__setattr__(self, "scale", scale)
        if math.isinf(self.eps):
            raise UserError("budgets of single inputs are shares of eps, which must be finite; got inf")

    @classmethod
    def of(cls, threat: Threat, scale: Tensor) -> RowThreat:
        """The threat with (N,) shares of its budget."""
        return cls(scale=scale, **_fields(threat))

    def of_rows(self, places: Tensor) -> RowThreat:
        """The same shares for the inputs at these places."""
        return RowThreat.of(self, self.scale[places])

    def _budget(self) -> Tensor:
        scale = self.scale.cpu() if lacks_float64(self.scale.device) else self.scale  # where it is computed with
        return self.eps * scale.double()

    def random_start(self, x: Tensor, random: Random) -> Tensor:
        """A random allowed input, as in a threat of the input's own budget."""
        delta = Threat(**_fields(self) | {"box": None}).random_start(torch.zeros_like(x), random)
        return self.project(x + per_row(self.scale, x).to(x.dtype) * delta, x)

    def ascend(self, x_adv: Tensor, grad: Tensor, step_size: float | Tensor) -> Tensor:
        """One step of length ``step_size`` times the input's scale in the steepest direction of this norm."""
        return super().ascend(x_adv, grad, step_size * self.scale.to(x_adv.dtype))


def _fields(threat: Threat) -> dict[str, Any]:
    """Those that every threat has."""
    return {f.name: getattr(threat, f.name) for f in fields(Threat)}
