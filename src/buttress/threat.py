"""What the attacker may do: the norm, the budget and the box, and all the geometry that follows from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.validation import one_of

if TYPE_CHECKING:
    from buttress.random import Random

Norm = Literal["linf", "l2", "l1"]


def per_row(values: Tensor, x: Tensor) -> Tensor:
    """(N,) values as (N, 1, ..., 1), to meet inputs of ``x``'s rank."""
    return values.view(-1, *[1] * (x.dim() - 1))


def norms(delta: Tensor, norm: Norm) -> Tensor:
    """(N,) norm of each row of ``delta``."""
    rows = delta.flatten(1)
    if rows.shape[1] == 0:
        return rows.new_zeros(len(rows))
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    size: Tensor = torch.linalg.vector_norm(rows, order, dim=1)
    return size


def budget_text(eps: float) -> str:
    """An eps as people write it: "0.3", or "8/255" when it is no round number but so many levels of an 8-bit image."""
    levels = eps * 255
    if math.isfinite(eps) and round(eps, 2) != round(eps, 9) and abs(levels - round(levels)) < 1e-4:
        return f"{round(levels)}/255"
    return f"{eps:.4g}" if math.isfinite(eps) else "∞"


def _project_l1(rows: Tensor, eps: float | Tensor) -> Tensor:
    """Euclidean projection of each row onto the L1 ball (Duchi et al., ICML 2008, by sorting)."""
    size = rows.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - eps
    rank = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=rows.dtype)
    count = (ordered * rank > excess).sum(1, keepdim=True).clamp(min=1)
    shrink = (excess.gather(1, count - 1) / count).clamp(min=0)
    return rows.sign() * (size - shrink).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class Threat:
    """A set of allowed perturbations around each input.

    Args:
        norm: how the size of a perturbation is measured: "linf", "l2" or "l1".
        eps: the largest size, in the units of the inputs; may be infinite.
        box: the range (low, high) that inputs live in, or None for no limit.

    Raises:
        UserError: for an unknown norm, an ``eps`` that is negative or not a number, or a box that is empty.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    box: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse what no input could satisfy."""
        one_of("norm", self.norm, get_args(Norm))
        if isinstance(self.eps, bool) or not isinstance(self.eps, int | float) or not self.eps >= 0:
            raise UserError(f"eps must be a number of 0 or more, in input units such as 8/255; got {self.eps!r}")
        if self.box is not None:
            if not isinstance(self.box, tuple | list) or len(self.box) != 2 or not self.box[0] < self.box[1]:
                raise UserError(f"box must be (low, high) with low < high, or none; got {self.box!r}")
            object.__setattr__(self, "box", (float(self.box[0]), float(self.box[1])))

    def _budget(self) -> Any:
        """The largest size: one number, or (N,) float64 where rows differ."""
        return self.eps

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,) float64 size of each perturbation in this threat's norm."""
        return norms(x_adv.double() - x.double(), self.norm)

    def contains(self, x_adv: Tensor, x: Tensor, tolerance: float = 0.0) -> Tensor:
        """(N,) bool: whether each ``x_adv`` is allowed for its ``x``, computed in float64."""
        inside: Tensor = self.distance(x_adv, x) <= self._budget() + tolerance
        if self.box is not None:
            low, high = torch.tensor(self.box, dtype=x.dtype).double().tolist()  # what clamping in x's dtype can reach
            rows = x_adv.double().flatten(1)
            inside &= ((rows >= low - tolerance) & (rows <= high + tolerance)).all(1)
        return inside

    def clip(self, x_adv: Tensor) -> Tensor:
        """``x_adv`` put back into the box, coordinate by coordinate; the budget is not looked at."""
        return x_adv if self.box is None else x_adv.clamp(*self.box)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest allowed input in the ball, then clipped to the box; exact in the dtype of ``x``.

        The perturbation is made in float64 and rounded towards ``x``, so the result is inside with tolerance 0.
        ``x`` must be in the box. NaN in ``x_adv`` counts as no perturbation, and so does infinity in an l2 or l1 ball.
        """
        # Clipping comes last: it only moves towards x, so what it leaves is inside the ball too.
        far = math.inf if self.norm == "linf" or math.isinf(self.eps) else 0.0  # a ball has no nearest point to those
        # In l1 what the box cuts off can be spent elsewhere: there the clipping comes first, too.
        x_adv = self.clip(x_adv) if self.norm == "l1" else x_adv
        delta = torch.nan_to_num(x_adv.double() - x.double(), nan=0.0, posinf=far, neginf=-far)
        budget = self._budget()
        if self.norm == "linf":
            budget = per_row(budget, delta) if isinstance(budget, Tensor) else budget
            delta = delta.clamp(-budget, budget)
        elif math.isfinite(self.eps) and delta.numel():
            eps = budget * (1 - 1e-12)  # room for the float64 rounding of the norm itself
            if self.norm == "l2":
                size = norms(delta, "l2")
                delta = delta * per_row((eps / size.clamp(min=1e-300)).clamp(max=1), delta)
            else:
                rows, eps = delta.flatten(1), eps[:, None] if isinstance(eps, Tensor) else eps
                over = rows.abs().sum(1, keepdim=True) > eps
                rows = torch.where(over, _project_l1(rows, eps), rows)
                # Far from a small ball the threshold cancels nearly all of a coordinate, and what is left is rounded.
                delta = (rows * (eps / rows.abs().sum(1, keepdim=True).clamp(min=1e-300)).clamp(max=1)).view_as(delta)
        moved = (x.double() + delta).to(x.dtype)
        overshoot = (moved.double() - x.double()).abs() > delta.abs()
        return self.clip(torch.where(overshoot, torch.nextafter(moved, x), moved))

    def projector(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` onto the threat around ``x``, with what depends on ``x`` alone computed once.

        In linf the allowed inputs are a box of their own, so that each projection is one clamp; NaN stays NaN there.
        """
        if self.norm != "linf":
            return lambda x_adv: self.project(x_adv, x)
        low, high = (self.project(torch.full_like(x, end), x) for end in (-math.inf, math.inf))
        return lambda x_adv: torch.clamp(x_adv, low, high)

    def random_start(self, x: Tensor, random: Random) -> Tensor:
        """A random allowed input: uniform in the cube (linf), or a random direction with a uniform radius (l2, l1).

        With an infinite ``eps`` the start is uniform in the box.

        Raises:
            UserError: when both ``eps`` and the box are unlimited.
        """
        shape = x.shape[1:]
        if math.isinf(self.eps):
            if self.box is None:
                raise UserError("a random start needs a finite eps or a box; got eps inf and no box")
            low, high = self.box
            return self.project(low + (high - low) * random.uniform(shape, x.dtype), x)
        if self.norm == "linf":
            delta = (2 * random.uniform(shape, x.dtype) - 1) * self.eps
        else:
            direction = random.normal(shape, x.dtype)
            if self.norm == "l1":  # Laplace-distributed coordinates spread evenly over the L1 sphere
                direction = direction.square().add(random.normal(shape, x.dtype).square()) * random.sign(shape, x.dtype)
            radius = self.eps * random.uniform((), x.dtype)
            delta = direction * per_row(radius / norms(direction, self.norm).clamp(min=1e-30), x)
        return self.project(x + delta, x)

    def ascend(self, x_adv: Tensor, grad: Tensor, step_size: float | Tensor) -> Tensor:
        """One step of length ``step_size`` (a number, or one per row) in the steepest direction of this norm.

        linf: the sign of the gradient. l2: the gradient itself. l1: the largest hundredth of the coordinates that the
        box does not block, as in SLIDE (Tramer and Boneh, 2019). The result is not projected.
        """
        step = per_row(step_size, x_adv) if isinstance(step_size, Tensor) else step_size
        if self.norm == "linf":
            return x_adv + step * grad.sign() if isinstance(step, Tensor) else torch.add(x_adv, grad.sign(), alpha=step)
        if self.norm == "l2":
            # Dividing by the largest entry first keeps the squares of tiny gradients from vanishing.
            grad = grad / per_row(norms(grad, "linf").clamp(min=torch.finfo(grad.dtype).tiny), grad)
            return x_adv + step * grad / per_row(norms(grad, "l2").clamp(min=1e-30), grad)
        size = grad.abs().flatten(1)
        if self.box is not None:
            blocked = ((x_adv <= self.box[0]) & (grad < 0)) | ((x_adv >= self.box[1]) & (grad > 0))
            size = size.masked_fill(blocked.flatten(1), 0)
        count = max(1, math.ceil(size.shape[1] / 100)) if size.numel() else 0
        top = size.topk(count, dim=1).indices
        direction = torch.zeros_like(size).scatter_(1, top, 1.0).mul_(size > 0).view_as(grad) * grad.sign()
        return x_adv + step * direction / max(count, 1)


# The default of an attack's field ``threat``: nobody gave one yet. It is filled in before the attack runs (see
# `Attack.within`), so that the mathematics in `perturb` may count on a threat, as the type says.
NOT_GIVEN = cast(Threat, None)


@dataclass(frozen=True, kw_only=True)
class RowThreat(Threat):
    """A threat whose budget differs from input to input, for training methods that give each example its own.

    It is about the inputs of one batch, in their order: attacks that set some of them aside cannot use it.

    Args:
        scale: (N,) share of ``eps`` that each input's perturbation may have, 0 or more; steps and random starts shrink
            by it, too.

    Raises:
        UserError: when ``eps`` is infinite.
    """

    scale: Tensor = field(default_factory=lambda: torch.ones(1), compare=False)

    def __post_init__(self) -> None:
        """Refuse what has no share."""
        super().__post_init__()
        if math.isinf(self.eps):
            raise UserError("budgets of single inputs are shares of eps, which must be finite; got inf")

    def _budget(self) -> Tensor:
        return self.eps * self.scale.double()

    def random_start(self, x: Tensor, random: Random) -> Tensor:
        """A random allowed input, as in a threat of the input's own budget."""
        delta = Threat(norm=self.norm, eps=self.eps, box=None).random_start(torch.zeros_like(x), random)
        return self.project(x + per_row(self.scale, x).to(x.dtype) * delta, x)

    def ascend(self, x_adv: Tensor, grad: Tensor, step_size: float | Tensor) -> Tensor:
        """One step of length ``step_size`` times the input's scale in the steepest direction of this norm."""
        return super().ascend(x_adv, grad, step_size * self.scale.to(x_adv.dtype))


def check_threat(name: str, threat: Threat, *known: Norm) -> None:
    """Refuse a threat without any limit, and a norm that the attack ``name`` is not defined in.

    Args:
        name: of the attack, for the message.
        threat: the attack's; one that is not given yet is checked once it is.
        known: the norms it is defined in; all unless given.

    Raises:
        UserError: saying what came and what would do.
    """
    if threat is NOT_GIVEN:
        return
    if math.isinf(threat.eps) and threat.box is None:
        raise UserError(f"{name} needs a finite eps or a box; got eps inf and no box")
    if threat.norm not in (known or get_args(Norm)):
        raise UserError(f"{name} is defined in {' and '.join(known)}; got {threat.norm}")
