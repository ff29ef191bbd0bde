"""Where a pass multiplies by weights, and which axis of each product is that of the weights' outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from buttress.layers.by_hand import tensors
from buttress.layers.watcher import watch
from buttress.model_call import call_model

# The positions of a product's two factors among the arguments.
_FACTORS = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), (0, 1)),
    "rmatmul": (1, 0),
    **dict.fromkeys(("addmm", "addbmm", "baddbmm", "addmv"), (1, 2)),
}
# What has the features of its weights on the last axis.
_BY_FEATURES = re.compile("(bi)?linear$|embedding(_bag)?$|multi_head_attention_forward$|lstm|gru|rnn_")


@dataclass(frozen=True, eq=False)
class Product:
    """What came of a multiplication by weights.

    Attributes:
        value: it.
        axis: of the weights' outputs, features or maps; None where several may be.
        maps: whether it is one of a convolution.
    """

    value: Tensor
    axis: int | None
    maps: bool


def weighted_calls(model: nn.Module, x: Tensor, layer: str) -> tuple[list[Product], Tensor | None]:
    """Every product of a pass until a layer has its value, in order; and that value, None where it is not called.

    Products are found by the functions that compute them, so weights may be anybody's: of a module of torch's, of the
    network itself, or computed from others.

    Args:
        model: the network.
        x: (N, ...) inputs.
        layer: name of the layer.
    """
    found: list[Tensor] = []
    products: list[Product] = []
    follow = _Follow(model, lambda product: None if found else products.append(product))

    def note(_: str, value: Tensor) -> Tensor:
        found.append(value)
        return value

    with watch(model, [layer], note) as watcher:
        watcher.calls = follow.see
        call_model(model, x)
    return products, found[-1] if found else None


class _Follow:
    """Tells what is computed from weights alone from all that may depend on the input."""

    def __init__(self, model: nn.Module, note: Callable[[Product], None]) -> None:
        self._note = note
        # Held, for an identity is given again.
        self._weights: dict[int, Tensor] = {id(value): value for value in model.parameters()}
        self._constant = self._weights | {id(value): value for value in model.buffers()}

    def see(self, function: str, args: tuple[Any, ...], output: Any, path: str, first: int) -> None:
        """A function of torch's has run; see `Watcher.calls`."""
        given, results = tensors(args), tensors(output)
        if function == "__setitem__":
            results = given[:1]
        weighted = any(self._is_weight(value) for value in given)
        product = _product(function, args, results, self._is_weight) if weighted and results else None
        if product is not None:
            self._note(product)
        constant = all(id(value) in self._constant for value in given)
        for value in results:
            for known, holds in ((self._constant, constant), (self._weights, constant and weighted)):
                if holds:
                    known[id(value)] = value
                else:
                    known.pop(id(value), None)

    def _is_weight(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._weights


def _product(
    function: str, args: tuple[Any, ...], results: Sequence[Tensor], is_weight: Callable[[Any], bool]
) -> Product | None:
    """What a function that is given weights multiplies by them; None where it does something else with them."""
    value, name = results[0], function.strip("_")
    if name.startswith("conv"):
        # Of a convolution without an axis of inputs the maps come first.
        return Product(value, value.dim() - args[1].dim() + 1, True) if is_weight(args[1]) else None
    if name == "einsum":
        return _einsum(value, args, is_weight)
    if name in _FACTORS:
        left, right = (args[k] for k in _FACTORS[name])
        if is_weight(left) == is_weight(right) or (left if is_weight(left) else right).dim() < 2:
            return None
        return Product(value, value.dim() - (2 if is_weight(left) and right.dim() > 1 else 1), False)
    if name == "tensordot":
        return Product(value, None, False)
    kernels = any(is_weight(part) and part.dim() > 1 for part in tensors(args))
    return Product(value, value.dim() - 1, False) if kernels and _BY_FEATURES.match(name) else None


def _einsum(value: Tensor, args: tuple[Any, ...], is_weight: Callable[[Any], bool]) -> Product | None:
    """The letter of the output that the weights alone have."""
    equation, *operands = args
    if not isinstance(equation, str) or len(tensors(operands)) == 0:
        return Product(value, None, False)  # the form of lists of axes
    terms, arrow, out = equation.replace(" ", "").partition("->")
    parts = tensors(operands)
    own = [letters for letters, part in zip(terms.split(","), parts, strict=True) if is_weight(part)]
    rest = [letters for letters, part in zip(terms.split(","), parts, strict=True) if not is_weight(part)]
    if not rest:
        return None
    new = [letter for letter in out if letter.isalpha() and letter in "".join(own) and letter not in "".join(rest)]
    if not arrow or len(new) != 1:
        return Product(value, None, False)
    return Product(value, value.dim() - len(out.partition(new[0])[2]) - 1, False)
