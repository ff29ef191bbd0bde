"""The layers that a network has called so far, batch by batch: their order, how they hold inputs, what feeds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress.layers.network_code import NetworkCode
from buttress.layers.paths import Paths, trace
from buttress.layers.rows import CHECKED, PART, Layout, Unaligned, layouts, one_or_all
from buttress.layers.select import LayerSelection, merge
from buttress.tasks import Task


@dataclass(frozen=True)
class Alone:
    """How the value of an input that is computed alone holds it: as a whole. Has what `Layout` has."""

    def fits(self, value: Tensor, n: int) -> bool:
        """Whether a value can be that of n inputs."""
        return n == 1 and value.numel() > 0

    def to_rows(self, value: Tensor, n: int) -> Tensor:
        """(1, ...) the value."""
        return value[None]

    def in_place_of(self, value: Tensor, rows: Tensor) -> Tensor:
        """The row as the network has ``value``: a copy, which the network may write over."""
        return rows[0].clone()


RowLayout = Layout | Alone


class KnownLayers:
    """The layers so far.

    How they hold inputs is told by `CHECKED` inputs, of several batches where these are smaller: a batch of two may
    hide that a layer is in another order than they are.

    Args:
        model: the network.
        layers: which layers.
        task: what the output is for.
        seed: of what a random network draws.

    Attributes:
        names: in order of execution.
        paths: how they hang together.
        sample: inputs of the first batches, to fill up a batch that is too small.
        code: what has been read of the network's code.
    """

    def __init__(self, model: nn.Module, layers: LayerSelection, task: Task, seed: int) -> None:
        self.model, self.layers, self.task, self.seed = model, layers, task, seed
        self.names: list[str] = []
        self.paths = Paths([], [], [])
        self.sample: list[Tensor] = []
        self.code = NetworkCode()
        self._layouts: dict[str, Layout | Unaligned] = {}

    def add(self, x: Tensor, values: Mapping[str, Tensor]) -> None:
        """Note the layers of a batch's pass: a network may call a layer in one batch and not in another."""
        if not merge(self.names, values):
            return
        self._layouts = self._told(x, values) | self._layouts
        if not self.paths.names:
            self.paths = self._traced(one_or_all(self.model, x, self.seed))
        if not set(self.names) <= set(self.paths.names):
            self.paths = self.paths.extended(self._traced(x))

    def _told(self, x: Tensor, values: Mapping[str, Tensor]) -> dict[str, Layout | Unaligned]:
        """How layers hold inputs, by those of a batch and as many others as are missing."""
        others = [part for part in self.sample if part is not x and part.shape[1:] == x.shape[1:]]
        enough = x if len(x) >= CHECKED else torch.cat([x, *others])[:CHECKED]
        seen = values if len(enough) == len(x) else None
        return layouts(self.model, enough, self.layers, values=seen, seed=self.seed, code=self.code)

    def _traced(self, x: Tensor) -> Paths:
        return trace(self.model, x, self.layers, task=self.task, check=False, code=self.code)

    def layout(self, name: str) -> Layout | Unaligned:
        """How a layer's value holds the inputs."""
        return self._layouts.get(name, PART)

    def has_parts(self, name: str) -> bool:
        """Whether a layer has a value for each input, be it for one that is computed alone."""
        layout = self.layout(name)
        return isinstance(layout, Layout) or layout.one_at_a_time

    def row_layout(self, name: str, value: Tensor, n: int) -> RowLayout | Unaligned:
        """How this value of a layer holds n inputs; or why it has no part for each of them."""
        layout = self.layout(name)
        if isinstance(layout, Layout):
            if layout.fits(value, n):
                return layout
            layout = PART  # of these inputs some go another way
        alone = Alone()
        return alone if layout.one_at_a_time and alone.fits(value, n) else layout
