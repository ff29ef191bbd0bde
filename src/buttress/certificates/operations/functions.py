"""Activation functions by the names that torch's operations have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from buttress.certificates.network.graph import Node
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


def _ends(place: Place) -> Sequence[float | Tensor]:
    """Where hardtanh or clamp bend; each feature at a place of its own, where tensors were given."""
    usual = (-1.0, 1.0) if place.node.name == "hardtanh" else (-torch.inf, torch.inf)
    names = ("min_val", "max_val") if place.node.name == "hardtanh" else ("min", "max")
    return [_argument(place, at + 1, names[at], usual[at]) for at in range(2)]


def _second(place: Place) -> tuple[Any]:
    """What the second argument is."""
    return (place.constant(place.node.arguments[1]),)


def _first(place: Place) -> tuple[Any]:
    """What the first argument is."""
    return (place.constant(place.node.arguments[0]),)


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
    if not factor:
        return torch.zeros_like(low)
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
    "threshold": Hull(bends=_second, rising=True),
    "hardtanh": Hull(bends=_ends, rising=True),
    "clamp": Hull(bends=_ends, rising=True),
    "clamp_min": Hull(bends=_second, rising=True),
    "clamp_max": Hull(bends=_second, rising=True),
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

# The larger or the smaller of a value and a constant, by the place of the value.
BESIDE_A_CONSTANT: dict[tuple[str, int], Elementwise] = {
    (name, at): Hull(bends=bend, rising=True)
    for name in ("maximum", "minimum")
    for at, bend in enumerate((_second, _first))
}

_JUMP = 15.0  # where softplus turns linear: 3e-7 below what it should be


def why_not(node: Node) -> str | None:
    """Why an operation that can be bounded cannot with these settings; None where it can."""
    given: dict[int, Any] = dict(enumerate(node.arguments))
    rounded = node.keywords.get("rounding_mode")
    if rounded is not None:
        return f"it rounds ({rounded}), and so has no lines that enclose it"
    if node.name == "threshold" and given[1] != given[2]:
        return "it jumps, and so has no lines that enclose it"
    if node.name in ("elu", "celu") and not all(given.get(at, 1.0) > 0 for at in (1, 2, 3)):
        return "bounds are known for positive settings alone"
    if node.name == "softplus" and not (given.get(1, 1.0) > 0 and given.get(2, 20.0) >= _JUMP):
        return f"bounds are known for a positive beta and a threshold of {_JUMP:g} or more, below which it jumps"
    if node.name.startswith("avg_pool") and (given.get(6) or 1) < 0:
        return "it divides by a negative number"
    return None
