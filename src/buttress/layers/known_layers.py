"""The layers that a network has called so far, batch by batch: their order, how they hold inputs, what feeds them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from buttress.layers.network_code import NetworkCode
from buttress.layers.paths import Paths, trace
from buttress.layers.rows import PART, Layout, Unaligned, layouts, one_or_all
from buttress.layers.select import LayerSelection, merge
from buttress.tasks import Task


class KnownLayers:
    """The layers so far.

    Args:
        model: the network.
        layers: which layers.
        task: what the output is for.
        seed: of what a random network draws.

    Attributes:
        names: in order of execution.
        paths: how they hang together.
        code: what has been read of the network's code.
    """

    def __init__(self, model: nn.Module, layers: LayerSelection, task: Task, seed: int) -> None:
        self.model, self.layers, self.task, self.seed = model, layers, task, seed
        self.names: list[str] = []
        self.paths = Paths([], [], [])
        self.code = NetworkCode()
        self._layouts: dict[str, Layout | Unaligned] = {}

    def add(self, x: Tensor, called: Iterable[str]) -> None:
        """Note what a batch has called: a network may call a layer in one batch and not in another."""
        if not merge(self.names, called):
            return
        self._layouts = layouts(self.model, x, self.layers, seed=self.seed, code=self.code) | self._layouts
        if not self.paths.names:
            self.paths = self._traced(one_or_all(self.model, x, self.seed))
        if not set(self.names) <= set(self.paths.names):
            self.paths = self.paths.extended(self._traced(x))

    def layout(self, name: str) -> Layout | Unaligned:
        """How a layer's value holds the inputs."""
        return self._layouts.get(name, PART)

    def _traced(self, x: Tensor) -> Paths:
        return trace(self.model, x, self.layers, task=self.task, check=False, code=self.code)
