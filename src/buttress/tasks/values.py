"""Values: one number per input, or several."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress import losses
from buttress.errors import UserError
from buttress.losses import Loss
from buttress.registry import task
from buttress.tasks.chance import best_values
from buttress.tasks.task import Task, as_tensor, described, refuse_not_finite, shape_hint
from buttress.validation import not_negative


@task("regression")
@dataclass(frozen=True)
class Regression(Task):
    """A value per input, or several; output and ``y``: (N,), (N, 1) or (N, D), in the units of the data.

    Attacks climb the margin, in which the largest error counts most; where an output has none at all, and so no slope,
    they raise it. Training minimises the mean squared error. A target is values of the form of ``y``, reached where the
    output is within the tolerance of them.

    Args:
        tolerance: the largest error of any value, in its units, that is still right.
    """

    tolerance: float = 0.1
    loss = "margin"
    objective_loss = "mse"
    right = "within tolerance of the truth"
    score_name = "share within tolerance"

    def __post_init__(self) -> None:
        """Refuse a tolerance that is none."""
        not_negative("tolerance", self.tolerance)

    @property
    def meanings(self) -> dict[str, Loss]:
        """The margin is the largest error beyond the tolerance; outputs are as far apart as their mean square is."""
        return {
            "margin": Loss(self.margin, direction=losses.total, targeted=self._closeness),
            "kl": losses.SQUARED_DIFFERENCE,
        }

    def margin(self, output: Tensor, y: Tensor) -> Tensor:
        """(N,) by how much errors are above the tolerance, `losses.any_above`: above 0 exactly where it is wrong."""
        return losses.any_above(self._errors(output, y) - self.tolerance)

    def read(self, output: object) -> Tensor:
        """Values (N, D); a single one as (N, 1)."""
        values = as_tensor(output, "values", "(inputs,) or (inputs, values)")
        if values.dim() == 1:
            values = values[:, None]
        if values.dim() != 2:
            shape = tuple(values.shape)
            raise UserError(f"the model must return values (inputs,) or (inputs, values); it returned shape {shape}")
        return values

    def check(self, output: Tensor, y: Tensor) -> None:
        """The truth must be finite numbers, as many as the output has.

        Raises:
            UserError: naming what came instead.
        """
        shapes = ((len(output),), (len(output), 1)) if output.shape[1] == 1 else (tuple(output.shape),)
        if tuple(y.shape) not in shapes or y.dtype == torch.bool or y.is_complex():
            hint = ": use y.float()" if tuple(y.shape) in shapes else shape_hint(y, tuple(output.shape))
            raise UserError(f"values must be numbers of shape {shapes[0]}; got {described(y)}{hint}")
        bad = 0 if not y.is_floating_point() else int((~y.isfinite()).sum())
        if bad:
            raise UserError(f"values must be finite; {bad} of {y.numel()} are NaN or infinite")
        refuse_not_finite(output)

    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Some value is further from the truth than the tolerance, or none is from the target; NaN is wrong."""
        if target is not None:
            return (self._errors(output, target) <= self.tolerance).all(1)
        return ~(self._errors(output, y) <= self.tolerance).all(1)

    def chance(self, y: Tensor, outputs: int) -> float:
        """Of the values that are within the tolerance of the most."""
        return best_values(y, self.tolerance)

    def _closeness(self, output: Tensor, target: Tensor) -> Tensor:
        return losses.all_above(self.tolerance - self._errors(output, target))

    def _errors(self, output: Tensor, y: Tensor) -> Tensor:
        """(N, D) of each value."""
        return (output - y.to(output).view_as(output)).abs()
