"""What a network can be asked besides its logits, also where it stands inside of wrappers."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


def optional_method(model: nn.Module, method: str, *more: Any) -> nn.Module | None:
    """A module whose call is ``method`` of the network, made to stand where the network stands; None without one.

    A network may be inside others that hold it as ``model``, such as `models.Normalized`, which
    show it their own view of the inputs; a parallel container is left away. Nothing is copied but the wrappers.

    Args:
        model: the network, or what it is in.
        method: name of a method that takes inputs first.
        more: what it takes besides.
    """
    around: list[nn.Module] = []
    inner: nn.Module | None = model
    while inner is not None and not callable(getattr(inner, method, None)):
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = inner.module
        else:
            around.append(inner)
            inner = inner._modules.get("model")
    if inner is None:
        return None
    asking: nn.Module = _Asking(inner, method, more)
    for outer in reversed(around):
        same = copy.copy(outer)
        same._modules = {**outer._modules, "model": asking}
        asking = same
    return asking


class _Asking(nn.Module):
    def __init__(self, network: nn.Module, method: str, more: tuple[Any, ...]) -> None:
        super().__init__()
        self.network, self.method, self.more = network, method, more

    def forward(self, x: Tensor) -> object:
        """What the method says of ``x``."""
        return getattr(self.network, self.method)(x, *self.more)
