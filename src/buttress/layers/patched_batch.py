"""One batch's attacked pass, with values of its layers replaced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from buttress.engine.preserved_model import preserved
from buttress.layers.capture import capture
from buttress.layers.network_code import NetworkCode
from buttress.layers.replacement import CannotReplaceError, gradients_of_its_own
from buttress.layers.rows import Layout, Unaligned
from buttress.layers.watcher import LayerCallback
from buttress.model_call import call_model
from buttress.tasks import Task

OUTPUT = None  # stands for the output among the names of layers


class PatchedBatch:
    """The clean and the attacked pass of n inputs, and the latter again with layers' values replaced.

    Every pass makes the same random draws.

    Args:
        model: the network.
        places: layer -> where the inputs are in its value.
        x: (n, ...) inputs, and ``x_adv`` (n, ...) the same attacked.
        x_adv: see ``x``.
        y: (n, ...) what the task asks for.
        task: what the output is for.
        seed: of the draws.
        code: what has been read of the network's code.

    Attributes:
        clean: layer -> its value in the clean pass, (n, ...) with the inputs first, and `OUTPUT` -> the output;
            ``attacked`` likewise.
        beaten: (n,) bool, right in the clean pass and wrong in the attacked one.
    """

    def __init__(
        self,
        model: nn.Module,
        places: Mapping[str, Layout | Unaligned],
        x: Tensor,
        x_adv: Tensor,
        y: Tensor,
        task: Task,
        seed: int,
        code: NetworkCode,
    ) -> None:
        self.model, self.places, self.x, self.x_adv, self.y = model, places, x, x_adv, y
        self.task, self.seed, self.code = task, seed, code
        self.clean, self.attacked = self._pass(x, {}), self._pass(x_adv, {})
        task.check(self.clean[OUTPUT], y)
        self.beaten = self.is_right(self.clean[OUTPUT]) & ~self.is_right(self.attacked[OUTPUT])

    def obstacle(self, name: str) -> str:
        """Why a layer cannot be patched; empty where it can."""
        place = self.places[name]
        if isinstance(place, Unaligned):
            return place.reason
        clean, attacked = self.clean.get(name), self.attacked.get(name)
        if clean is None or attacked is None or clean.shape != attacked.shape:
            return "is not called by both passes with a value for each input"
        if torch.equal(clean, attacked):
            return ""
        try:
            with gradients_of_its_own():
                patched = self._pass(self.x_adv, {name: clean})
        except CannotReplaceError as error:
            return str(error)
        if name not in patched:
            return "is not called when its value is replaced"
        unchanged = torch.equal(patched[OUTPUT], self.attacked[OUTPUT])
        return "changes no output when its value is replaced" if unchanged else ""

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
                return self._as_network_has(name, self.clean[name], value)
            rows, held = self._rows(name, value), self.attacked.get(name)
            if rows is None or held is None or held.shape != rows.shape:
                return value
            receive(name, rows, held)
            return self._as_network_has(name, held, value)

        receive(OUTPUT, self._run(self.x_adv, list(self.places), hold)[OUTPUT], self.attacked[OUTPUT])
        return received

    def _pass(self, x: Tensor, replacements: Mapping[str, Tensor]) -> dict[str | None, Tensor]:
        """The layers' values and the output, with some of them replaced."""

        def put(name: str, value: Tensor) -> Tensor:
            return self._as_network_has(name, replacements[name], value)

        return self._run(x, list(replacements or self.places), put if replacements else None)

    def _run(self, x: Tensor, names: list[str], replace: LayerCallback | None) -> dict[str | None, Tensor]:
        with (
            preserved(self.model, "eval", self.seed, x.device),
            torch.no_grad(),
            capture(self.model, names, replace=replace, code=self.code) as values,
        ):
            output = self.task.read(call_model(self.model, x))
        rows = {name: self._rows(name, value) for name, value in values.items()}
        return {**{name: value for name, value in rows.items() if value is not None}, OUTPUT: output}

    def _rows(self, name: str, value: Tensor) -> Tensor | None:
        """A layer's value with the inputs first; None where it has no part for each."""
        place, n = self.places[name], len(self.x)
        if isinstance(place, Unaligned) or not place.fits(value, n):
            return None
        return place.to_rows(value, n)

    def _as_network_has(self, name: str, rows: Tensor, value: Tensor) -> Tensor:
        """The inverse for a value in the place of ``value``: a copy, since the network may write over it."""
        place = self.places[name]
        assert isinstance(place, Layout)  # others have no rows
        return place.in_place_of(value, rows)
