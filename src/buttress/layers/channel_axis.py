"""Which axis of a layer's value is that of its channels: the features of a token, the maps of an image."""

from __future__ import annotations

from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.graph import in_order
from buttress.layers.rows import Layout, Unaligned, compared
from buttress.layers.weighted_calls import Product, weighted_calls


@in_usual_state
def channel_axis(model: nn.Module, x: Tensor, layer: str, layout: Layout) -> int:
    """The axis of channels in a layer's value with the inputs first, by the last product with weights up to there.

    Products of modules and of raw parameters count alike; their channels are the outputs of the weights: the maps of
    a convolution, the features of a linear layer. Where what lies between has given the value another number of axes,
    it is the only axis that is as long. A value of four axes or more that has no axis as long, as one of several
    convolutions side by side, is taken for images; so is one before all weights, of inputs that are images.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        layer: its name.
        layout: where the inputs are in its value.

    Raises:
        UserError: for a value of one number for each input, and where the axis cannot be told.
    """
    products, found = _pass(model, x, layer)
    value = layout.to_rows(found, len(x))
    if value.dim() < 2:
        raise UserError(f"a layer with channels has several numbers for each input; {layer} has one: name another")
    if value.dim() == 2:
        return 1
    if not products:
        if value.dim() == x.dim() > 3:
            return 1
        raise _unknown(layer, value)
    last = _before(products, found)
    read = compared(lambda some, _: dict(enumerate(p.value for p in _pass(model, some, layer)[0])), x)
    at = read if isinstance(read, Unaligned) else read.get(products.index(last))
    if not isinstance(at, Layout) or last.axis is None or last.axis == at.axis:
        raise _unknown(layer, value)
    source = at.to_rows(last.value, len(x))
    usual = last.axis + (last.axis < at.axis) + source.dim() - at.dims
    alike = [axis for axis in range(1, value.dim()) if value.shape[axis] == source.shape[usual]]
    if source.dim() == value.dim() and usual in alike:
        return usual
    if len(alike) == 1:
        return alike[0]
    if last.maps and not alike and value.dim() > 3:
        return 1
    raise _unknown(layer, value)


def _pass(model: nn.Module, x: Tensor, layer: str) -> tuple[list[Product], Tensor]:
    with preserved(model, "eval", 0, x.device):
        products, value = weighted_calls(model, x, layer)
    if value is None:
        raise UserError(f"no layer {layer!r} is called for these inputs")
    return products, value


def _before(products: list[Product], value: Tensor) -> Product:
    """The last product that the value is computed from, where the graph tells; else the last before it."""
    upstream = set(in_order(value.grad_fn))
    return next((product for product in reversed(products) if product.value.grad_fn in upstream), products[-1])


def _unknown(layer: str, value: Tensor) -> UserError:
    shape = ", ".join(map(str, ("N", *value.shape[1:])))
    return UserError(f"which axis of {layer} ({shape}) its channels are on cannot be told: name a layer with weights")
