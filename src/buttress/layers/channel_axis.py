"""Which axis of a layer's value is that of its channels: the features of a token, the maps of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.capture import capture, layer_names
from buttress.layers.rows import Layout, Unaligned, layouts
from buttress.layers.select import user_module
from buttress.model_call import call_model


@in_usual_state
def channel_axis(model: nn.Module, x: Tensor, layer: str, layout: Layout) -> int:
    """The axis of channels in a layer's value with the inputs first, by the last layer with weights up to there.

    Convolutions have their channels on the axis after the inputs, all other layers of torch on the last one. Where what
    lies between has given the value another number of axes, it is the only axis that is as long. A value of four axes
    or more that has no axis as long, as one of several convolutions side by side, is taken for images.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        layer: its name.
        layout: where the inputs are in its value.

    Raises:
        UserError: for a value of one number for each input, and where the axis cannot be told.
    """
    weighted = _learnable(model, x)
    with preserved(model, "eval", 0, x.device), torch.no_grad(), capture(model, [*weighted, layer]) as values:
        call_model(model, x)
    value = layout.to_rows(values[layer], len(x))
    if value.dim() < 2:
        raise UserError(f"a layer with channels has several numbers for each input; {layer} has one: name another")
    order = list(values)
    before = [name for name in order[: order.index(layer) + 1] if name in weighted]
    if value.dim() == 2 or not before:
        return 1
    last = before[-1]
    at = layouts(model, x, [last]).get(last)
    if at is None or isinstance(at, Unaligned):
        raise _unknown(layer, value)
    source = at.to_rows(values[last], len(x))
    modules = dict(user_module(model).named_modules(remove_duplicate=False))
    maps = _is_convolution(modules.get(last.partition("#")[0], user_module(model)))
    usual = 1 if maps else source.dim() - 1
    alike = [axis for axis in range(1, value.dim()) if value.shape[axis] == source.shape[usual]]
    if source.dim() == value.dim() and usual in alike:
        return usual
    if len(alike) == 1:
        return alike[0]
    if maps and not alike and value.dim() > 3:
        return 1
    raise _unknown(layer, value)


def _learnable(model: nn.Module, x: Tensor) -> list[str]:
    try:
        return layer_names(model, x, "learnable")
    except UserError:  # none
        return []


def _is_convolution(module: nn.Module) -> bool:
    """Whether it owns a kernel, a weight of three or more dimensions."""
    kernels = isinstance(module, nn.modules.conv._ConvNd)
    return kernels or any(parameter.dim() > 2 for parameter in module.parameters(recurse=False))


def _unknown(layer: str, value: Tensor) -> UserError:
    shape = ", ".join(map(str, ("N", *value.shape[1:])))
    return UserError(f"which axis of {layer} ({shape}) its channels are on cannot be told: name a layer with weights")
