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
        path: of the module that it was computed in.
        name: what to call it: the function, in that module, and one of its weights.
    """

    value: Tensor
    axis: int | None
    maps: bool
    path: str
    name: str


def weighted_calls(model: nn.Module, x: Tensor, layer: str) -> tuple[list[Product], Tensor | None]:
    """Every product of a pass until a layer has its value, in order; and that value, None where it is not called.

    Args:
        model: the network.
        x: (N, ...) inputs.
        layer: name of the layer.
    """
    found: list[tuple[int, Tensor]] = []
    calls = WeightedCalls(model)

    def note(_: str, value: Tensor) -> Tensor:
        found.append((len(calls.products), value))
        return value

    with watch(model, [layer], note) as watcher:
        watcher.calls = calls.see
        call_model(model, x)
    count, value = found[0] if found else (0, None)
    return calls.products[:count], value


class WeightedCalls:
    """Follows one pass, and notes its products with weights.

    They are found by the functions that compute them, so weights may be anybody's: of a module of torch's, of the
    network itself, or computed from others. What is computed from weights alone is told from all that may depend on the
    input.

    Args:
        model: the network.

    Attributes:
        products: those of the pass so far, in order.
    """

    def __init__(self, model: nn.Module) -> None:
        self.products: list[Product] = []
        # By identity, and held, for one is given again; with the name of a parameter that it is computed from.
        self._weights: dict[int, tuple[Tensor, str]] = {id(w): (w, name) for name, w in model.named_parameters()}
        self._constant = {id(value): value for value in (*model.parameters(), *model.buffers())}

    def see(self, function: str, args: tuple[Any, ...], output: Any, path: str, first: int) -> None:
        """A function of torch's has run; see `Watcher.calls`."""
        given, results = tensors(args), tensors(output)
        if function == "__setitem__":
            results = given[:1]
        of = next((self._weights[id(value)][1] for value in given if self._is_weight(value)), None)
        if of is not None and results:
            axis = _axis(function.strip("_"), args, results[0], self._is_weight)
            if axis is not None:
                name = f"{path}.{function.strip('_')}" if path else function.strip("_")
                self.products.append(Product(results[0], *axis, path, f"{name} by {of}"))
        constant = all(id(value) in self._constant for value in given)
        for value in results:
            self._constant.pop(id(value), None)
            self._weights.pop(id(value), None)
            if constant:
                self._constant[id(value)] = value
                if of is not None:
                    self._weights[id(value)] = value, of

    def outside_of(self, layers: Sequence[str], root: nn.Module) -> list[str]:
        """The products that no layer stands for, as of a module whose ``forward`` is called instead of itself."""
        names = [layer.partition("#")[0] for layer in layers]
        whole = type(root).__name__.lower()  # as a root is called that is a layer itself
        return [
            product.name
            for product in self.products
            if not any(f"{product.path or whole}.".startswith(f"{name}.") for name in names)
        ]

    def _is_weight(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._weights


def _axis(
    name: str, args: tuple[Any, ...], value: Tensor, is_weight: Callable[[Any], bool]
) -> tuple[int | None, bool] | None:
    """The axis of what a function makes of weights and other numbers, and whether it is one of a convolution.

    None where it multiplies nothing by the weights.
    """
    last = value.dim() - 1
    if name.startswith("conv"):
        # Of a convolution without an axis of inputs the maps come first.
        return (value.dim() - args[1].dim() + 1, True) if is_weight(args[1]) else None
    if name == "einsum":
        return _of_einsum(value, args, is_weight)
    if name in _FACTORS:
        left, right = (args[k] for k in _FACTORS[name])
        if is_weight(left) == is_weight(right) or (left if is_weight(left) else right).dim() < 2:
            return None
        return (last - 1 if is_weight(left) and right.dim() > 1 else last), False
    if name == "tensordot":
        return None, False
    kernels = any(is_weight(part) and part.dim() > 1 for part in tensors(args))
    return (last, False) if kernels and _BY_FEATURES.match(name) else None


def _of_einsum(
    value: Tensor, args: tuple[Any, ...], is_weight: Callable[[Any], bool]
) -> tuple[int | None, bool] | None:
    """By the letter of the output that the weights alone have."""
    parts = tensors(args)
    if not any(not is_weight(part) for part in parts):
        return None
    terms, _, out = args[0].replace(" ", "").partition("->") if isinstance(args[0], str) else ("", "", "")
    letters = dict(enumerate(terms.split(",")))
    own = "".join(letters.get(k, "") for k, part in enumerate(parts) if is_weight(part))
    rest = "".join(letters.get(k, "") for k, part in enumerate(parts) if not is_weight(part))
    new = [letter for letter in out if letter.isalpha() and letter in own and letter not in rest]
    return (value.dim() - len(out.partition(new[0])[2]) - 1 if len(new) == 1 else None), False
