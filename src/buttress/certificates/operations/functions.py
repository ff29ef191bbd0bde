"""Activation functions by the names that torch's operations have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from buttress.certificates.operations.elementwise import Elementwise
from buttress.certificates.operations.hulls import Hull
from buttress.certificates.operations.operation import Place
from buttress.certificates.operations.relu import ReLU
from buttress.errors import UserError


def _argument(place: Place, at: int, name: str, usual: Any) -> Any:
    """An argument by its place or its name; the usual value where it was not given."""
    node = place.node
    given = node.arguments[at] if len(node.arguments) > at else node.keywords.get(name)
    return usual if given is None else place.constant(given)


def _ends(place: Place) -> tuple[float, float]:
    """Where hardtanh or clamp bend."""
    usual = (-1.0, 1.0) if place.node.name == "hardtanh" else (-torch.inf, torch.inf)
    names = ("min_val", "max_val") if place.node.name == "hardtanh" else ("min", "max")
    low, high = (_argument(place, at + 1, names[at], usual[at]) for at in range(2))
    return float(low), float(high)


def _threshold(place: Place) -> tuple[float]:
    if float(place.node.arguments[1]) != float(place.node.arguments[2]):
        raise UserError(f"cannot bound {place.node}: it jumps, and so has no lines that enclose it")
    return (float(place.node.arguments[1]),)


def _shrink(place: Place) -> tuple[float, float]:
    width = float(_argument(place, 1, "lambd", 0.5))
    return -width, width


def _elu(place: Place, low: Tensor, high: Tensor) -> float:
    alpha, scale, inner = (float(_argument(place, at + 1, "", 1.0)) for at in range(3))
    return abs(alpha * scale * inner**2)


def _softplus(place: Place, low: Tensor, high: Tensor) -> float:
    return float(_argument(place, 1, "beta", 1.0)) / 4


def _power(place: Place, low: Tensor, high: Tensor) -> Tensor:
    exponent = float(place.node.arguments[1])
    factor, left = abs(exponent * (exponent - 1)), exponent - 2
    sizes = torch.stack([low.abs(), high.abs()])
    if left >= 0:
        return factor * sizes.amax(0) ** left
    if not bool((low > 0).all()):
        raise UserError(f"cannot bound {place.node}: its input may be 0 or negative within the budget")
    return factor * sizes.amin(0) ** left


# The largest size of the second derivative: in closed form where the function is simple, else rounded up.
FUNCTIONS: dict[str, Elementwise] = {
    "relu": ReLU(),
    "leaky_relu": ReLU(1, 0.01),
    "_prelu_kernel": ReLU(1),
    "threshold": Hull(bends=_threshold, rising=True),
    "hardtanh": Hull(bends=_ends, rising=True),
    "clamp": Hull(bends=_ends, rising=True),
    "clamp_min": Hull(bends=lambda place: [float(place.node.arguments[1])], rising=True),
    "clamp_max": Hull(bends=lambda place: [float(place.node.arguments[1])], rising=True),
    "hardsigmoid": Hull(bends=(-3.0, 3.0), rising=True),
    "hardswish": Hull(1 / 3, bends=(-3.0, 3.0)),
    "abs": Hull(bends=(0.0,)),
    "sigmoid": Hull(0.0963, rising=True),
    "tanh": Hull(0.7699, rising=True),
    "softplus": Hull(_softplus, rising=True),
    "log_sigmoid_forward": Hull(0.25, rising=True),
    "elu": Hull(_elu, bends=(0.0,), rising=True),
    "celu": Hull(lambda place, low, high: 1 / float(_argument(place, 1, "alpha", 1.0)), bends=(0.0,), rising=True),
    "softshrink": Hull(bends=_shrink, rising=True),
    "gelu": Hull(0.85),
    "silu": Hull(0.5),
    "mish": Hull(0.65),
    "erf": Hull(0.9681, rising=True),
    "sin": Hull(1.0),
    "cos": Hull(1.0),
    "exp": Hull(lambda place, low, high: high.exp(), rising=True),
    "log": Hull(lambda place, low, high: low.pow(-2), rising=True, positive=True),
    "sqrt": Hull(lambda place, low, high: low.pow(-1.5) / 4, rising=True, positive=True),
    "rsqrt": Hull(lambda place, low, high: low.pow(-2.5) * 0.75, positive=True),
    "reciprocal": Hull(lambda place, low, high: 2 * low.pow(-3), positive=True),
    "pow": Hull(_power),
}
