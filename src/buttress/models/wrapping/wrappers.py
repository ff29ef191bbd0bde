"""What is inside wrappers, and the same wrappers around something else."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from buttress.models.wrapping.normalized import Normalized
from buttress.models.wrapping.outputs import FromProbabilities, Output

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_WRAPPERS = (Normalized, Output, FromProbabilities, *_PARALLEL)


def nested(model: nn.Module) -> list[nn.Module]:
    """The model, and what is inside each of its wrappers: this package's and parallel containers."""
    modules = [model]
    while isinstance(modules[-1], _WRAPPERS):
        modules.append(_content(modules[-1]))
    return modules


def inner(model: nn.Module) -> nn.Module:
    """The network inside all wrappers: the one that the user made."""
    return nested(model)[-1]


def network_with(model: object, method: str) -> Any:
    """The outermost network that has the method: the model, or one that modules around it hold as ``model``.

    A user's own wrappers are looked through, too. None where no network has the method.
    """
    while isinstance(model, nn.Module) and not callable(getattr(model, method, None)):
        model = _content(model)
    return model if callable(getattr(model, method, None)) else None


def rewrap(model: Any, network: nn.Module, inside: nn.Module | None = None) -> nn.Module:
    """The wrappers of ``model`` around another network, parallel containers left away.

    Nothing is copied but the wrappers; their buffers and hooks are shared.

    Args:
        model: a network in its wrappers.
        network: what is put in.
        inside: the module in ``model`` that it replaces; `inner` unless given.
    """
    inside = inner(model) if inside is None else inside
    if model is inside:
        return network
    content: nn.Module = rewrap(_content(model), network, inside)
    if isinstance(model, _PARALLEL):
        return content
    wrapper: nn.Module = copy.copy(model)
    wrapper._modules = {**model._modules, "model": content}
    return wrapper


def _content(wrapper: nn.Module) -> Any:
    return wrapper.module if isinstance(wrapper, _PARALLEL) else wrapper._modules.get("model")
