"""What is inside wrappers, the same wrappers around something else, and what a network offers besides its logits."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from buttress.models.wrapping.black_boxes import FromLabels
from buttress.models.wrapping.from_embedding import FromEmbedding
from buttress.models.wrapping.normalized import Normalized
from buttress.models.wrapping.outputs import FromProbabilities, Output

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_WRAPPERS = (Normalized, Output, FromProbabilities, FromLabels, FromEmbedding, *_PARALLEL)


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


def optional_method(model: nn.Module, method: str, *more: Any) -> nn.Module | None:
    """A module whose call is ``method`` of the network, in the network's wrappers; None without such a method.

    The wrappers, such as `models.Normalized`, give the method their own view of the inputs.

    Args:
        model: the network, or what it is in.
        method: name of a method that takes inputs first.
        more: what it takes besides.
    """
    network = network_with(model, method)
    return None if network is None else rewrap(model, _Method(network, method, more), network)


class _Method(nn.Module):
    def __init__(self, network: nn.Module, method: str, more: tuple[Any, ...]) -> None:
        super().__init__()
        self.network, self.method, self.more = network, method, more

    def forward(self, x: Tensor) -> object:
        """The method's answer for ``x``."""
        return getattr(self.network, self.method)(x, *self.more)


def _content(wrapper: nn.Module) -> Any:
    return wrapper.module if isinstance(wrapper, _PARALLEL) else dict(wrapper.named_children()).get("model")
