"""Errors in one line for inputs that do not fit a model."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.models.input_forms import adapter, other_form
from buttress.models.wrapping.wrappers import inner

# The words PyTorch's layers use when a shape does not fit; errors of dtype, device or memory are none of these.
_SHAPE_ERRORS = re.compile(
    r"expected input|shapes cannot be multiplied|Expected \d\w* \(unbatched\)|expected \d\w*( or \d\w*)? input"
    r"|Kernel size can't be greater|Output size is too small|running_mean should contain|is invalid for input of size"
    r"|[Ss]izes? of tensors? .*must match|don't multiply up to|Dimension out of range|size mismatch"
)


_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

# What torch.nn.Embedding says to numbers that are no integers.
_TOKENS = re.compile(r"Expected tensor for argument #1 'indices' to have")


def forward_checked(model: nn.Module, x: Tensor) -> Any:
    """``model(x)``, with a line of our own where PyTorch says that a shape does not fit.

    Raises:
        UserError: naming the model, the input's shape and what the model's first layer takes.
    """
    try:
        return call_model(model, x)
    except UserError:
        raise
    except Exception as error:  # whatever a network of a user's raises for inputs that it is not made for
        mismatch = _unlike(error, model, x)
        if mismatch is None:
            raise
        raise mismatch from error


def _unlike(error: Exception, model: nn.Module, x: Tensor) -> UserError | None:
    """The line for an error raised by ``model(x)``, or None where it is not about what the network takes."""
    network = inner(model)
    if isinstance(error, TypeError) and (line := _other_arguments(network)) is not None:
        return UserError(line)
    if (mismatch := describe_mismatch(error, model, x)) is not None:
        return mismatch
    if isinstance(error, torch.OutOfMemoryError) or (other := other_form(network, x)) is None:
        return None
    shape = "x".join(map(str, x.shape))
    return UserError(f"{type(network).__name__} cannot take inputs of shape {shape}; {other}")


def _other_arguments(network: nn.Module) -> str | None:
    """The adapter to write around a network that cannot be called with inputs alone; None for one that can."""
    signature = inspect.signature(network.forward)
    try:
        signature.bind(object())
    except TypeError as reason:
        needed = [p for p in signature.parameters.values() if p.default is p.empty and p.kind not in _OPEN]
        given = ["x" if p.kind is not p.KEYWORD_ONLY else f"{p.name}=x" for p in needed[:1]]
        given += [p.name if p.kind is not p.KEYWORD_ONLY else f"{p.name}={p.name}" for p in needed[1:]]
        what = f"{type(network).__name__}.forward{signature} cannot be called with the inputs alone ({reason})"
        return f"{what}: {adapter(', '.join(given))}"
    return None


def describe_mismatch(error: Exception, model: nn.Module, x: Tensor) -> UserError | None:
    """The line for an error raised by ``model(x)``, or None when it is about neither shapes nor tokens."""
    if _TOKENS.search(str(error)) and x.is_floating_point():
        return UserError(
            f"{type(inner(model)).__name__} takes tokens, and the inputs are {x.dtype}: in Python give "
            "models.FromEmbedding(network), and the values of its embed(tokens) where they are not trained on"
        )
    if not _SHAPE_ERRORS.search(str(error)):
        return None
    shape = "x".join(map(str, x.shape))
    network = inner(model)
    line = f"{type(network).__name__} cannot take inputs of shape {shape}"
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            size_of_layer = f"{layer.in_features} features"
        elif isinstance(layer, nn.modules.conv._ConvNd):
            size_of_layer = f"{layer.in_channels} channel" + "s" * (layer.in_channels > 1)
        else:
            continue
        line += f": its first layer, {name or type(layer).__name__}, takes {size_of_layer}"
        break
    size = getattr(network, "image_size", None)
    if isinstance(size, int):
        line += f", and it was made for images of {size}x{size} pixels"
    return UserError(f"{line}; {other_form(network, x) or 'give such inputs, or a model made for these'}")
