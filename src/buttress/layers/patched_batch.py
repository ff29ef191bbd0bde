"""One batch's attacked pass, with values of its layers replaced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from buttress.engine.preserved_model import preserved
from buttress.layers.capture import LayerCallback, capture
from buttress.model_call import call_model
from buttress.tasks import Task


OUTPUT = None  # stands for the output among the names of layers


class PatchedBatch:
    """The clean and the attacked pass of n inputs, and the latter again with layers' values replaced.

    Every pass makes the same random draws.

    Attributes:
        clean: layer -> its value in the clean pass, and `OUTPUT` -> the output; ``attacked`` likewise.
        beaten: (n,) bool, right in the clean pass and wrong in the attacked one.
    """

    def __init__(
        self, model: nn.Module, names: list[str], x: Tensor, x_adv: Tensor, y: Tensor, task: Task, seed: int
    ) -> None:
        self.model, self.names, self.x, self.x_adv, self.y = model, names, x, x_adv, y
        self.task, self.seed = task, seed
        self.clean, self.attacked = self._pass(x, {}), self._pass(x_adv, {})
        task.check(self.clean[OUTPUT], y)
        self.beaten = self.is_right(self.clean[OUTPUT]) & ~self.is_right(self.attacked[OUTPUT])

    def obstacle(self, name: str) -> str:
        """Why a layer cannot be patched; empty where it can."""
        clean, attacked = self.clean.get(name), self.attacked.get(name)
        if clean is None or attacked is None or clean.shape != attacked.shape:
            return "one of the two passes does not call it, or with another shape"
        if not clean.dim() or len(clean) != len(self.x):
            return "its first axis is not the inputs'"
        if torch.equal(clean, attacked):
            return ""
        patched = self._pass(self.x_adv, {name: clean})
        if name not in patched:
            return "not every pass calls it"
        unchanged = torch.equal(patched[OUTPUT], self.attacked[OUTPUT])
        return "replacing its value changes no output" if unchanged else ""

    def right(self, replacements: Mapping[str, Tensor]) -> Tensor:
        """(n,) bool: which inputs are right in the attacked pass with these values in the place of the layers' own."""
        return self.is_right(self._pass(self.x_adv, replacements)[OUTPUT])

    def is_right(self, output: Tensor) -> Tensor:
        """(n,) bool: for which inputs an output is right."""
        return ~self.task.is_adversarial(output, self.y)

    def direct(self, sender: str) -> dict[str | None, Tensor]:
        """What the clean value of one layer changes on its direct paths, all other layers held as attacked.

        Returns:
            By layer that it reaches directly (or `OUTPUT`) the value that this one takes.
        """
        received: dict[str | None, Tensor] = {}

        def receive(name: str | None, value: Tensor, held: Tensor) -> None:
            if not torch.allclose(value, held, rtol=1e-5, atol=1e-7, equal_nan=True):
                received[name] = value.clone()

        def hold(name: str, value: Tensor) -> Tensor:
            if name == sender:
                return self.clean[name].clone()
            held = self.attacked.get(name)
            if held is None or held.shape != value.shape:
                return value
            receive(name, value, held)
            return held.clone()

        receive(OUTPUT, self._run(self.x_adv, self.names, hold)[OUTPUT], self.attacked[OUTPUT])
        return received

    def _pass(self, x: Tensor, replacements: Mapping[str, Tensor]) -> dict[str | None, Tensor]:
        """The layers' values and the output, with some of them replaced."""

        def put(name: str, value: Tensor) -> Tensor:
            # A copy, since the network may write over what it is handed.
            return replacements[name].clone() if name in replacements else value

        return self._run(x, list(replacements) or self.names, put)

    def _run(self, x: Tensor, names: list[str], replace: LayerCallback) -> dict[str | None, Tensor]:
        with (
            preserved(self.model, "eval", self.seed, x.device),
            torch.no_grad(),
            capture(self.model, names, replace=replace) as values,
        ):
            output = self.task.read(call_model(self.model, x))
        return {**values, OUTPUT: output}
