"""Passes in which layers have other values than their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import _pop_mode_temporarily

from buttress.engine.preserved_model import preserved
from buttress.layers.known_layers import RowLayout
from buttress.layers.network_code import NetworkCode
from buttress.layers.watcher import Watcher, watch
from buttress.model_call import call_model
from buttress.tasks import Task

# What torch says of a gradient that is asked for beyond a replaced value.
_CUT_OFF = ("to not have been used in the graph", "does not require grad")
_ITS_OWN_GRADIENTS = "is in a network that takes gradients of its own, which a replaced value cuts off from the input"


class CannotReplaceError(Exception):
    """Why a layer's value cannot be replaced, to follow the layer's name."""


class ReplacedPasses:
    """Passes of a network with other values in its layers' places.

    Every pass makes the same random draws, and begins with the buffers that the network came with.

    Args:
        model: the network.
        layouts: layer -> how its value holds the inputs.
        task: how to read the output.
        seed: of the draws.
        code: what has been read of the network's code.
    """

    _watcher: Watcher  # while `opened`

    def __init__(
        self, model: nn.Module, layouts: Mapping[str, RowLayout], task: Task, seed: int, code: NetworkCode
    ) -> None:
        self.model, self.layouts, self.task, self.seed, self.code = model, layouts, task, seed, code
        self._choose: Callable[[str, Tensor], Tensor | None] = lambda name, value: None

    @contextmanager
    def opened(self, device: torch.device) -> Iterator[None]:
        """Let passes be made. Gradients are to be taken meanwhile.

        In a part that runs without gradients the values have one all the same, for what follows that part.
        """
        with (
            preserved(self.model, "eval", self.seed, device),
            watch(self.model, [*self.layouts], self._put, replaces=True, code=self.code) as self._watcher,
            _pop_mode_temporarily(),
        ):
            yield

    def output(self, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """The output for (n, ...) inputs with these values, (n, ...) each, in the places of the layers' own.

        Raises:
            CannotReplaceError: where the pass does not call a layer, or has another size of value for it.
        """
        called: set[str] = set()

        def choose(name: str, value: Tensor) -> Tensor | None:
            if name not in values:
                return None
            called.add(name)
            rows, layout = values[name], self.layouts[name]
            if not layout.fits(value, len(rows)) or layout.to_rows(value, len(rows)).numel() != rows.numel():
                raise CannotReplaceError("has another size in another pass")
            if len(called) == len(values):
                self._watcher.rest()
            return rows

        output = self.run(x, choose)
        if len(called) < len(values):
            raise CannotReplaceError("is not called in every pass")
        return output

    def run(self, x: Tensor, choose: Callable[[str, Tensor], Tensor | None]) -> Tensor:
        """The output for (n, ...) inputs.

        Args:
            x: the inputs.
            choose: gets each layer's name and value, and returns the rows (n, ...) to go on with, or None for its own.

        Raises:
            CannotReplaceError: of a network that takes gradients inside, which no longer reach what they are of.
        """
        self._choose = choose
        graphs = torch.is_grad_enabled()
        with preserved(self.model, "eval", self.seed, x.device), torch.set_grad_enabled(graphs), self._watcher:
            try:
                return self.task.read(call_model(self.model, x))
            except RuntimeError as error:
                if not any(sign in str(error) for sign in _CUT_OFF):
                    raise
                raise CannotReplaceError(_ITS_OWN_GRADIENTS) from None

    def _put(self, name: str, value: Tensor) -> Tensor:
        rows = self._choose(name, value)
        return value if rows is None else self.layouts[name].in_place_of(value, rows)
