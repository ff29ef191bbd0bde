"""What the attacker may do: the norm, the budget and the box, and all the geometry that follows from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.float64 import exact
from buttress.threat.box import Box, Ends, FeatureValues
from buttress.threat.geometry import DUAL, Norm, budget_text, norms, per_row, project_rows_l1
from buttress.threat.region import Region
from buttress.validation import one_of

if TYPE_CHECKING:
    from buttress.random import Random


@dataclass(frozen=True, kw_only=True, init=False, repr=False)
class Threat(Region):
    """A set of allowed perturbations around each input.

    Args:
        norm: how the size of a perturbation is measured: "linf", "l2" or "l1".
        eps: the largest size, in the units of the inputs; may be infinite. In Python, in linf, also a tensor of one
            value for each feature: ``eps`` is then the largest, and a size counts in shares of each feature's own.
        box: the range (low, high) that inputs live in, or None for no limit; an end may be infinite. In Python also
            tensors of one value for each feature.
        mask: bool, of one input's shape or one that broadcasts to it: whether a feature may change. None for all.
        shares: of ``eps`` that each feature may change by; follows from an ``eps`` by feature.

    Raises:
        UserError: for an unknown norm, an ``eps`` that is negative or not a number, or a box that is empty; for an
            ``eps`` by feature that is infinite or in another norm than linf, whose ball would be no ball of that norm.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    box: tuple[float, float] | None = (0.0, 1.0)
    mask: FeatureValues | None = field(default=None, repr=False)
    shares: FeatureValues | None = field(default=None, repr=False)

    def __init__(
        self,
        *,
        norm: Norm = "linf",
        eps: float | Tensor | np.ndarray[Any, Any] | Sequence[Any] = 8 / 255,
        box: Ends | None = (0.0, 1.0),
        mask: Tensor | FeatureValues | None = None,
        shares: Tensor | FeatureValues | None = None,
    ) -> None:
        one_of("norm", norm, get_args(Norm))
        if isinstance(eps, Tensor | np.ndarray | list | tuple):
            given = FeatureValues.read("eps", eps, torch.float64).values
            eps, shares = (float(given), shares) if given.numel() == 1 else _shared(given)
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not eps >= 0:
            raise UserError(f"eps must be a number of 0 or more, in input units such as 8/255; got {eps!r}")
        if shares is not None and norm != "linf":
            raise UserError(f"an eps by feature is defined in linf; got {norm}: give one number, or a mask")
        features = None if mask is None else FeatureValues.read("mask", mask, torch.bool)
        if features is not None and not bool(features.values.any()):
            raise UserError("mask fixes all features: True is for those that may change")
        values = {
            "norm": norm,
            "eps": eps,
            "box": Box.read(box),
            "mask": features,
            "shares": None if shares is None else FeatureValues.read("shares", shares, torch.float64),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        extra = [f"{name}={value!r}" for name in ("mask", "shares") if (value := getattr(self, name)) is not None]
        return (
            f"{type(self).__name__}({', '.join([f'norm={self.norm!r}', f'eps={self.eps}', f'box={self.box}', *extra])})"
        )

    # What there is to know of it

    def text(self, eps: float | None = None) -> str:
        """In words, perhaps at another eps: "linf eps 0.1 (by feature from 0.01; 12 of 40 features fixed)"."""
        eps = self.eps if eps is None else eps
        told = [] if self.shares is None else [f"by feature from {budget_text(eps * float(self.shares.values.min()))}"]
        told += [] if self.mask is None else [repr(self.mask)]
        return f"{self.norm} eps {budget_text(eps)}" + (f" ({'; '.join(told)})" if told else "")

    def facts(self) -> dict[str, Any]:
        """Its settings as plain data for JSON; ``Threat(**facts)`` is the same threat."""
        features = {n: value.plain() for n in ("mask", "shares") if (value := getattr(self, n)) is not None}
        return {"norm": self.norm, "eps": self.eps, "box": None if self._box is None else self._box.plain(), **features}

    @property
    def _box(self) -> Box | None:
        return cast("Box | None", self.box)

    def _budget(self) -> Any:
        """The largest size: one number, or (N,) float64 where rows differ."""
        return self.eps

    def budgets(self, x: Tensor) -> Tensor:
        """(N,) the largest size of each input's perturbation, in the dtype of ``x``."""
        return torch.as_tensor(self._budget(), device=x.device).to(x.dtype).expand(len(x))

    def of_rows(self, places: Tensor) -> Threat:
        """The threat around inputs that are taken from a batch by (M,) places, perhaps repeatedly."""
        return self

    def _sides(self, x: Tensor) -> Any:
        """How far each value may move in linf, in float64: a number or a tensor that meets ``x``."""
        budget = self._budget()
        budget = per_row(budget, x) if isinstance(budget, Tensor) else budget
        if self.shares is None:
            return budget
        shares = self.shares.to(x.double())
        return torch.where(shares > 0, budget * shares, 0.0)

    # The box, and the features that may change

    def _free(self, like: Tensor) -> Tensor | None:
        """Bool, of one input's shape: the features that may change; None for all."""
        fixed = [(part.values == 0).to(like.device) for part in (self.mask, self.shares) if part is not None]
        return None if not fixed else ~(fixed[0] | fixed[-1])

    def shared(self, values: Tensor) -> Tensor:
        """``values`` (..., *one input's shape), such as a linf direction, each times its feature's share of ``eps``."""
        return self.free(values if self.shares is None else values * self.shares.to(values))

    @property
    def by_feature(self) -> bool:
        """Whether box, mask or eps differ from feature to feature."""
        return bool(self.mask or self.shares) or not (self._box is None or self._box.uniform)

    @property
    def bounded(self) -> bool:
        """Whether eps or the box limits how far every feature can go."""
        return math.isfinite(self.eps) or math.isfinite(self.widest)

    @exact
    def across(self, x: Tensor) -> Tensor:
        """(N,) float64 the size of a perturbation by each feature's `widths`."""
        return self.size(self.free(self.widths(x.double()).expand_as(x)))

    def farthest(self, x: Tensor) -> Tensor:
        """(N,) the size of the largest perturbation that the box allows; at most the largest number there is."""
        low, high = self.limits(x)
        return self.size(torch.maximum(x - low, high - x)).clamp(max=torch.finfo(x.dtype).max)

    # Sizes

    def size(self, delta: Tensor) -> Tensor:
        """(N,) the norm; with an eps by feature the largest of all values over their shares."""
        if self.shares is not None:
            delta = torch.where(delta == 0, delta, delta / self.shares.to(delta))
        return norms(delta, self.norm)

    @exact
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,) float64 size of each perturbation in this threat's norm; infinite where a fixed feature has changed.

        With an ``eps`` by feature each value counts over its share of ``eps``: its distance is at most ``eps`` where no
        value has moved further than its own.
        """
        delta = x_adv.double() - x.double()
        size = self.size(delta)
        if self.shares is not None:  # what rounding adds in the division
            inside = (delta.abs() <= self._sides(x)).flatten(1).all(1)
            size = torch.where(inside, size.clamp(max=self._budget()), size)
        free = self._free(x)
        return size if free is None else size.where(~((delta != 0) & ~free).flatten(1).any(1) | size.isnan(), math.inf)

    def dual(self, grad: Tensor) -> Tensor:
        """(N,) the rise of a function of this gradient along the steepest perturbation of size 1: the dual norm."""
        return norms(self.shared(grad), DUAL[self.norm])

    @exact
    def contains(self, x_adv: Tensor, x: Tensor, tolerance: float = 0.0) -> Tensor:
        """(N,) bool: whether each ``x_adv`` is allowed for its ``x``, computed in float64."""
        inside: Tensor = self.distance(x_adv, x) <= self._budget() + tolerance
        if self._box is not None:
            low, high = (end.double() for end in self._box.ends(x))  # what clamping in x's dtype can reach
            there = x_adv.double()
            inside &= ((there >= low - tolerance) & (there <= high + tolerance)).flatten(1).all(1)
        return inside

    # Projections and steps

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest allowed input in the ball, then clipped to the box; exact in the dtype of ``x``.

        The perturbation is made in float64 and rounded towards ``x``, so the result is inside with tolerance 0.
        ``x`` must be in the box. NaN in ``x_adv`` counts as no perturbation, and so does infinity where the threat has
        no farthest point: in an l2 or l1 ball, and where neither eps nor the box ends.
        """
        moved = self._project(x_adv, x)
        return moved if self.bounded else torch.where(moved.isfinite(), moved, x)

    @exact
    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        # Clipping comes last: it only moves towards x, so what it leaves is inside the ball too.
        far = math.inf if self.norm == "linf" or math.isinf(self.eps) else 0.0  # a ball has no nearest point to those
        # In l1 what the box cuts off can be spent elsewhere: there the clipping comes first, too.
        x_adv = self.clip(x_adv, x) if self.norm == "l1" else x_adv
        delta = torch.nan_to_num(x_adv.double() - x.double(), nan=0.0, posinf=far, neginf=-far)
        delta, budget = self.free(delta), self._budget()
        if self.norm == "linf":
            sides = self._sides(delta)
            delta = delta.clamp(-sides, sides)
        elif math.isfinite(self.eps) and delta.numel():
            eps = budget * (1 - 1e-12)  # room for the float64 rounding of the norm itself
            if self.norm == "l2":
                size = norms(delta, "l2")
                delta = delta * per_row((eps / size.clamp(min=1e-300)).clamp(max=1), delta)
            else:
                rows, eps = delta.flatten(1), eps[:, None] if isinstance(eps, Tensor) else eps
                over = rows.abs().sum(1, keepdim=True) > eps
                rows = torch.where(over, project_rows_l1(rows, eps), rows)
                # Far from a small ball the threshold cancels nearly all of a coordinate, and what is left is rounded.
                delta = (rows * (eps / rows.abs().sum(1, keepdim=True).clamp(min=1e-300)).clamp(max=1)).view_as(delta)
        moved = (x.double() + delta).to(x.dtype)
        overshoot = (moved.double() - x.double()).abs() > delta.abs()
        return self.clip(torch.where(overshoot, torch.nextafter(moved, x), moved), x)

    def cube(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, ...) the lowest and highest value that a single feature can take; infinite where nothing limits it."""
        single = self if self.norm == "linf" else replace(self, norm="linf")
        low, high = (single._project(torch.full_like(x, end), x) for end in (-math.inf, math.inf))
        return low, high

    def projector(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` onto the threat around ``x``, with what depends on ``x`` alone computed once.

        In linf the allowed inputs are a box of their own, so that each projection is one clamp; NaN stays NaN there.
        """
        if self.norm != "linf":
            return lambda x_adv: self.project(x_adv, x)
        low, high = self.cube(x)
        return lambda x_adv: torch.clamp(x_adv, low, high)

    def random_start(self, x: Tensor, random: Random) -> Tensor:
        """A random allowed input: uniform in the cube (linf), or a random direction with a uniform radius (l2, l1).

        With an infinite ``eps`` the start is uniform in the box.

        Raises:
            UserError: when ``eps`` is infinite and the box has no end.
        """
        shape = x.shape[1:]
        if math.isinf(self.eps):
            if not self.bounded:
                raise UserError(
                    f"a random start needs a finite eps or a box with finite ends; got eps inf and {self.box_text}"
                )
            low, high = self.limits(x)
            return self.project(low + (high - low) * random.uniform(shape, x.dtype), x)
        if self.norm == "linf":
            delta = (2 * random.uniform(shape, x.dtype) - 1) * self._paced(self.eps, x)
        else:
            direction = random.normal(shape, x.dtype)
            if self.norm == "l1":  # Laplace-distributed coordinates spread evenly over the L1 sphere
                direction = direction.square().add(random.normal(shape, x.dtype).square()) * random.sign(shape, x.dtype)
            direction, radius = self.free(direction), self.eps * random.uniform((), x.dtype)
            delta = direction * per_row(radius / norms(direction, self.norm).clamp(min=1e-30), x)
        return self.project(x + delta, x)

    def _paced(self, step: Any, x: Tensor) -> Any:
        """How far each feature goes in a linf step: by its share of eps, without an eps by its share of the widest."""
        if self.shares is not None:
            return step * self.shares.to(x)
        if math.isinf(self.eps) and self._box is not None and not self._box.uniform:
            widths = self.free(self.widths(x))
            return step * widths / widths.amax().clamp(min=torch.finfo(x.dtype).tiny)
        return step

    def ascend(self, x_adv: Tensor, grad: Tensor, step_size: float | Tensor) -> Tensor:
        """One step of length ``step_size`` (a number, or one per row) in the steepest direction of this norm.

        linf: the sign of the gradient. l2: the gradient itself. l1: the largest hundredth of the coordinates that the
        box does not block, as in SLIDE (Tramer and Boneh, 2019). Features that may not change have no part in it; with
        an ``eps`` by feature each goes its share. The result is not projected.
        """
        step = per_row(step_size, x_adv) if isinstance(step_size, Tensor) else step_size
        grad = self.free(grad)
        if self.norm == "linf":
            step = self._paced(step, x_adv)
            return x_adv + step * grad.sign() if isinstance(step, Tensor) else torch.add(x_adv, grad.sign(), alpha=step)
        if self.norm == "l2":
            # Dividing by the largest entry first keeps the squares of tiny gradients from vanishing.
            grad = grad / per_row(norms(grad, "linf").clamp(min=torch.finfo(grad.dtype).tiny), grad)
            return x_adv + step * grad / per_row(norms(grad, "l2").clamp(min=1e-30), grad)
        size = grad.abs().flatten(1)
        if self._box is not None:
            low, high = self._box.ends(x_adv)
            blocked = ((x_adv <= low) & (grad < 0)) | ((x_adv >= high) & (grad > 0))
            size = size.masked_fill(blocked.flatten(1), 0)
        count = max(1, math.ceil(len(self.free_features(x_adv)) / 100)) if size.numel() else 0
        top = size.topk(count, dim=1).indices
        direction = torch.zeros_like(size).scatter_(1, top, 1.0).mul_(size > 0).view_as(grad) * grad.sign()
        return x_adv + step * direction / max(count, 1)

    # Inputs of another shape

    def reshaped(self, before: torch.Size, after: torch.Size) -> Threat:
        """The same threat for inputs whose features (of shape ``before``) are seen in another shape."""

        def seen(values: Any) -> Any:
            if not isinstance(values, FeatureValues):
                return values
            return FeatureValues(values.values.expand(before).reshape(after))

        box = None if self._box is None else Box(seen(end) for end in self._box)
        return replace(self, box=box, mask=seen(self.mask), shares=seen(self.shares))

    def check(self, x: Tensor) -> None:
        """Refuse a mask, or an eps by feature, of another shape than the inputs; their box is checked with them.

        Raises:
            UserError: naming the setting, its shape and that of the inputs.
        """
        for name, values in (("mask", self.mask), ("eps", self.shares)):
            if values is not None:
                values.check(name, x)


def _shared(eps: Tensor) -> tuple[float, FeatureValues | None]:
    """The largest eps, and each feature's share of it, rounded so that the product is never above what was given."""
    if not bool(((eps >= 0) & eps.isfinite()).all()):
        raise UserError(f"an eps by feature must be finite numbers of 0 or more; got {FeatureValues(eps)!r}")
    largest = float(eps.max())
    if largest == 0:
        return 0.0, None
    shares = eps / largest
    shares = torch.where(shares * largest > eps, torch.nextafter(shares, torch.zeros_like(shares)), shares)
    return largest, FeatureValues(shares)
