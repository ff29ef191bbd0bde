"""Products of matrices that are attention's: what comes out goes through a softmax, or one factor comes from one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from buttress.layers.graph import sources
from buttress.layers.nonlinear import operation

# Scales, masks, sums with a bias, changes of shape: what lies between a product and its softmax.
_BETWEEN = frozenset(
    (
        *("Add", "Alias", "Clone", "Contiguous", "Div", "Expand", "MaskedFill", "Mul", "NativeDropout", "Neg"),
        *("Permute", "ReshapeAlias", "ReshapeCopy", "Slice", "Squeeze", "Sub", "T", "ToCopy", "Transpose"),
        *("UnsafeView", "Unsqueeze", "View", "Where"),
    )
)
_SOFTMAX = frozenset(("Softmax", "SafeSoftmax"))
_MATRICES = frozenset(("Addmm", "Baddbmm", "Bmm", "Matmul", "Mm", "Mv"))


def attention_products(order: Iterable[Any]) -> set[Any]:
    """Those among the nodes that compute attention's scores, or sum values by its weights.

    Attention that is written by hand is told by its softmax, once, and not by its products beside.

    Args:
        order: nodes of the autograd graph, each after those that it depends on.
    """
    found: set[Any] = set()
    for node in order:
        kind = operation(node.name())
        if kind in _SOFTMAX:
            found.update(other for other in _behind(node) if operation(other.name()) in _MATRICES)
        elif kind in _MATRICES and any(operation(other.name()) in _SOFTMAX for other in _behind(node)):
            found.add(node)
    return found


def _behind(node: Any) -> Iterator[Any]:
    """The nearest nodes upstream that are more than a scale, a mask or a change of shape."""
    seen, waiting = {node}, sources(node)
    while waiting:
        other = waiting.pop()
        if other in seen:
            continue
        seen.add(other)
        if operation(other.name()) in _BETWEEN:
            waiting += sources(other)
        else:
            yield other
