"""What a network can answer besides its logits, also where it is inside wrappers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from buttress.models.wrapping.wrappers import network_with, rewrap


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
