"""Linear multistep methods: the coefficients of their steps, their characteristic roots, and zero stability.

A step is ``y_{n+1} = a0 y_n + a1 y_{n-1} + a2 y_{n-2} + b0 f(y_n)``, the step size being part of ``f``. A residual
block is the one with a0 = b0 = 1 and a1 = a2 = 0, Euler's. (Chen, Jin and Shang, AAAI 2022, arXiv 2206.13100; Lu et
al., ICML 2018, for two steps.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from buttress.errors import UserError
from buttress.registry import nearest
from buttress.validation import number

Scalar = TypeVar("Scalar", float, Tensor)
Coefficients = tuple[float, float, float, float]
TOLERANCE = 1e-9


def three_step(k: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """The coefficients (a0, a1, a2, b0) of the explicit three-step methods of second order, one for each k but 0.

    Zero-stable for k <= -1 and k > 1/3. The parasitic roots are smallest at k = -9/5.
    """
    return (3 * k + 3) / (4 * k), -1 / k, (k + 1) / (4 * k), (3 * k - 1) / (2 * k)


def two_step(k: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """The coefficients (1 - k, k, 0, 1) of LM-ResNet's two-step methods, with one parasitic root, -k."""
    return 1 - k, k, 0 * k, 0 * k + 1


EULER: Coefficients = (1.0, 0.0, 0.0, 1.0)
OPTIMAL: Coefficients = (1 / 3, 5 / 9, 1 / 9, 16 / 9)  # three_step(-9/5): a double parasitic root, -1/3
LEAPFROG: Coefficients = (0.0, 1.0, 0.0, 2.0)  # three_step(-1): on the edge of the region, with roots 1, 0 and -1
NOT_CONSISTENT: Coefficients = (1.0, 1.0, 1.0, 1.0)  # nor stable


@dataclass(frozen=True)
class Discretisation:
    """How the blocks of a network step.

    Attributes:
        coefficients: (a0, a1, a2, b0); where they are trained, initially.
        start: blocks at the start that are ordinary residual blocks, as there are no earlier states yet.
        reads: states that are read, 0 the newest: a fixed 0 reads none.
        rule: the coefficients as a function of k, where each block trains its own.
        k: its initial value then.
    """

    coefficients: Coefficients
    start: int
    reads: tuple[int, ...]
    rule: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]] | None = None
    k: float | None = None


def fixed(coefficients: Coefficients, start: int = 2) -> Discretisation:
    """The same coefficients (a0, a1, a2, b0) in every block, beside those at the start."""
    return Discretisation(coefficients, start, tuple(lag for lag in range(3) if coefficients[lag] != 0))


ORDINARY = fixed(EULER, 0)
_FIXED = {
    "opt": fixed(OPTIMAL),
    "resnet": ORDINARY,
    "leapfrog": fixed(LEAPFROG),
    "unstable": fixed(NOT_CONSISTENT),
}
# Rule, blocks at the start, states read, and the initial k unless given.
_TRAINED: dict[str, tuple[Any, int, tuple[int, ...], float]] = {
    "tra": (three_step, 2, (0, 1, 2), 1.0),
    "lm": (two_step, 1, (0, 1), 0.0),
}


def discretisation(setting: object, k: float | None = None) -> Discretisation:
    """The way of stepping of this name, of this k of `three_step`, or with these coefficients (a0, a1, a2, b0).

    Args:
        setting: "opt", "resnet", "leapfrog", "unstable" (coefficients 1, 1, 1, 1), "tra" (a k of `three_step` trained
            in each block), "lm" (likewise of `two_step`); a number; or four numbers.
        k: initial value of what is trained; 1 for "tra" and 0, an ordinary residual block, for "lm" unless given.

    Raises:
        UserError: for what is none of these, for k = 0 where the formula has none, and for a k that nothing trains.
    """
    if k is not None:
        number("k", k)
    if k is not None and setting not in ("tra", "lm"):
        raise UserError(f"k is the initial value of discretisations tra and lm; {setting!r} trains none")
    if isinstance(setting, str):
        if setting in _TRAINED:
            rule, start, reads, usual = _TRAINED[setting]
            first = _number("k", usual if k is None else k, may_be_zero=setting == "lm")
            return Discretisation(rule(first), start, reads, rule, first)
        if setting in _FIXED:
            return _FIXED[setting]
        raise UserError(f"there is no discretisation {setting!r}; {nearest(setting, [*_FIXED, *_TRAINED])}")
    if isinstance(setting, Sequence):
        if len(setting) != 4:
            raise UserError(f"discretisation takes four coefficients, a0, a1, a2 and b0; got {list(setting)}")
        a0, a1, a2, b0 = (_number("a coefficient of discretisation", value, may_be_zero=True) for value in setting)
        return fixed((a0, a1, a2, b0))
    return fixed(three_step(_number("discretisation, as the k of a three-step method,", setting)))


def _number(name: str, value: object, may_be_zero: bool = False) -> float:
    result = number(name, value)
    if result == 0 and not may_be_zero:
        raise UserError(f"{name} must not be 0: the formula divides by it")
    return result


def family_parameter(coefficients: Sequence[float]) -> float | None:
    """The k for which `three_step` gives these (a0, a1, a2, b0), or None where no finite k does."""
    a1 = coefficients[1]
    if a1 == 0 or not math.isfinite(a1):
        return None
    k = -1 / a1
    pairs = zip(three_step(k), coefficients, strict=True)
    return k if all(abs(own - other) <= TOLERANCE * (1 + abs(other)) for own, other in pairs) else None


def consistency_order(a: Sequence[float], b0: float, most: int = 6) -> int:
    """Up to which degree polynomials are stepped without error, 0 where not even the method is consistent.

    Args:
        a: coefficients of the states, the newest first.
        b0: coefficient of f at the newest state, for a step size of 1.
        most: degrees tried.
    """
    if abs(sum(a) - 1) > TOLERANCE:
        return 0
    for degree in range(1, most + 1):
        stepped = sum(weight * float(-lag) ** degree for lag, weight in enumerate(a)) + (b0 if degree == 1 else 0.0)
        if abs(stepped - 1) > TOLERANCE:
            return degree - 1
    return most


def characteristic_roots(a: Sequence[float]) -> list[complex]:
    """The roots of r^s - a0 r^(s-1) - ... - a_(s-1), the largest first; of a consistent method the root 1 leads.

    Raises:
        UserError: for coefficients that are not finite, or none.
    """
    if not a or not all(math.isfinite(value) for value in a):
        raise UserError(f"a multistep method has one finite coefficient or more; got {list(a)}")
    polynomial = np.array([1.0, *(-value for value in a)])
    if abs(sum(a) - 1) > TOLERANCE:
        return _sorted(polynomial)
    # The root 1 is known: what is left of the polynomial is of a lower degree, and its roots are more exact.
    return [1 + 0j, *_sorted(np.cumsum(polynomial)[:-1])]


def _sorted(polynomial: np.ndarray[Any, np.dtype[np.float64]]) -> list[complex]:
    if len(polynomial) == 3:
        _, p, q = (float(value) for value in polynomial)
        inside = p * p - 4 * q
        # A double root: rounding would take it apart by the square root of the error.
        root = complex(0.0) if abs(inside) <= 1e-14 * (p * p + 4 * abs(q)) else complex(inside) ** 0.5
        roots = [(-p + root) / 2, (-p - root) / 2]
    else:
        roots = [complex(value) for value in np.roots(polynomial)]
    return sorted(roots, key=lambda root: (-abs(root), -root.real, -root.imag))


def parasitic_modulus(a: Sequence[float]) -> float:
    """The largest modulus of the roots beside the root 1; of all roots, where the method is not consistent.

    Differences between two paths of states shrink or grow by this factor a step, beside what the solution itself does.
    """
    roots = characteristic_roots(a)
    parasitic = roots[1:] if abs(sum(a) - 1) <= TOLERANCE else roots
    return max((abs(root) for root in parasitic), default=0.0)


def is_zero_stable(a: Sequence[float], tolerance: float = TOLERANCE) -> bool:
    """Whether small differences of the states stay small with f = 0: the root condition.

    No root may lie outside the unit circle, and those on it must be simple. A root counts as on the circle within
    ``tolerance``, and two as one within its square root, which is how far an error so large takes a double root apart.

    Args:
        a: coefficients of the states, the newest first.
        tolerance: of moduli.
    """
    roots = characteristic_roots(a)
    if any(abs(root) > 1 + tolerance for root in roots):
        return False
    edge = [index for index, root in enumerate(roots) if abs(root) >= 1 - tolerance]
    return not any(
        index != other and abs(roots[index] - roots[other]) <= math.sqrt(tolerance)
        for index in edge
        for other in range(len(roots))
    )


def amplification(steps: Sequence[Sequence[float]]) -> float:
    """The largest factor by which some steps with f = 0, one after another, multiply a difference of their states.

    The spectral norm of the product of the companion matrices. Roots tell of one method repeated for ever; this tells
    of so many steps, each with coefficients of its own. Three or more of ordinary residual blocks give the root of 3: a
    difference of the newest state comes to stand in all three.

    Args:
        steps: the coefficients of the states of each step, the newest state first, equally many.
    """
    size = len(steps[0])
    product = np.eye(size)
    for a in steps:
        companion = np.eye(size, k=-1)
        companion[0] = a
        product = companion @ product
    return float(np.linalg.norm(product, 2))
