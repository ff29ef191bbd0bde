"""One batch's clean and attacked pass, and either of them again with values of its layers replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from buttress.engine.preserved_model import preserved
from buttress.layers.capture import capture
from buttress.layers.known_layers import Alone, KnownLayers, RowLayout
from buttress.layers.replacement import ReplacedPasses
from buttress.layers.rows import PART, UNPAIRED, Layout, Unaligned, one_at_a_time
from buttress.model_call import call_model

OUTPUT = None  # stands for the output among the names of layers


class AttackedBatch:
    """The clean and the attacked pass of n inputs. Every pass makes the same random draws.

    Args:
        known: the layers, to which those of the clean pass are added.
        x: (n, ...) inputs, and ``x_adv`` (n, ...) the same attacked.
        x_adv: see ``x``.
        y: (n, ...) what the task asks for.

    Attributes:
        layouts: layer -> how its value holds the inputs, of those that both passes call with a part for each input.
        unpaired: likewise of those whose two values are of other parts of the inputs, as other tokens.
        clean: layer -> its value in the clean pass, (n, ...) with the inputs first, and `OUTPUT` -> the output;
            ``attacked`` likewise, without those that are unpaired.
        obstacles: layer -> why it has no such value in this batch.
        wrong: (n,) bool, inputs that are wrong in the clean pass; ``success`` likewise in the attacked one.
    """

    def __init__(self, known: KnownLayers, x: Tensor, x_adv: Tensor, y: Tensor) -> None:
        self.known, self.x, self.x_adv, self.y = known, x, x_adv, y
        clean, output = self._pass(x)
        attacked, output_adv = self._pass(x_adv)
        known.task.check(output, y)
        known.add(x, clean)
        self.clean: dict[str | None, Tensor] = {OUTPUT: output}
        self.attacked: dict[str | None, Tensor] = {OUTPUT: output_adv}
        self.layouts: dict[str, RowLayout] = {}
        self.unpaired: dict[str, RowLayout] = {}
        self.obstacles: dict[str, Unaligned] = {}
        for name, value in clean.items():
            layout = self._pair(name, value, attacked.get(name))
            if isinstance(layout, Unaligned):
                self.obstacles[name] = layout
            else:
                self.layouts[name] = layout
        self._unpair_others()
        self.wrong, self.success = (~self.is_right(each[OUTPUT]) for each in (self.clean, self.attacked))

    def _pair(self, name: str, clean: Tensor, attacked: Tensor | None) -> RowLayout | Unaligned:
        """Keep a layer's two values, if both have a part for each input."""
        n = len(self.x)
        layout = self.known.row_layout(name, clean, n)
        if isinstance(layout, Unaligned) or attacked is None:
            return layout if isinstance(layout, Unaligned) else UNPAIRED
        if not layout.fits(attacked, n):
            return PART if isinstance(layout, Layout) and n > 1 else UNPAIRED
        self.clean[name], self.attacked[name] = layout.to_rows(clean, n), layout.to_rows(attacked, n)
        return layout

    def _unpair_others(self) -> None:
        """Set aside the layers whose two values are of other parts of the inputs."""
        alone = [name for name, layout in self.layouts.items() if isinstance(layout, Alone)]
        known, others = self.known, set[str]()
        if alone:
            (clean,), (attacked,) = (
                one_at_a_time(known.model, x, alone, seed=known.seed, code=known.code) for x in (self.x, self.x_adv)
            )
            others |= {name for name in alone if not clean[name].pairs_with(attacked[name])}
        others |= {name for name in self.layouts if self.clean[name].shape != self.attacked[name].shape}
        for name in others:
            self.unpaired[name], self.obstacles[name] = self.layouts.pop(name), UNPAIRED
            del self.attacked[name]

    @property
    def beaten(self) -> Tensor:
        """(n,) bool, right in the clean pass and wrong in the attacked one."""
        return self.success & ~self.wrong

    @property
    def apart(self) -> list[str]:
        """Layers that have a value only for an input that is computed alone."""
        return [name for name, reason in self.obstacles.items() if reason.one_at_a_time and len(self.x) > 1]

    def each(self) -> Iterator[AttackedBatch]:
        """The inputs one at a time."""
        for one in zip(*(torch.split(part, 1) for part in (self.x, self.x_adv, self.y)), strict=True):
            yield AttackedBatch(self.known, *one)

    @contextmanager
    def replacing(self) -> Iterator[ReplacedPasses]:
        """Passes with other values in the places of the layers, as long as the context is open."""
        known = self.known
        layouts = self.layouts | self.unpaired
        passes = ReplacedPasses(known.model, layouts, known.task, known.seed, known.code)
        with passes.opened(self.x.device):
            yield passes

    def is_right(self, output: Tensor) -> Tensor:
        """(n,) bool: for which inputs an output is right."""
        return ~self.known.task.is_adversarial(output, self.y)

    def right(self, passes: ReplacedPasses, values: Mapping[str, Tensor]) -> Tensor:
        """(n,) bool: which inputs are right in the attacked pass with these values in the place of the layers' own."""
        return self.is_right(passes.output(self.x_adv, values))

    def direct(self, passes: ReplacedPasses, sender: str) -> dict[str | None, Tensor]:
        """What the clean value of one layer changes on its direct paths, all other layers held as attacked.

        Returns:
            By layer that it reaches directly (or `OUTPUT`) the value that this one takes.
        """
        received: dict[str | None, Tensor] = {}

        def receive(name: str | None, value: Tensor) -> None:
            if not torch.allclose(value, self.attacked[name], rtol=1e-5, atol=1e-7, equal_nan=True):
                received[name] = value.detach().clone()

        def hold(name: str, value: Tensor) -> Tensor | None:
            if name == sender:
                return self.clean[name]
            if name in self.unpaired:
                return None
            layout, held, n = self.layouts[name], self.attacked[name], len(self.x)
            if not layout.fits(value, n) or layout.to_rows(value, n).shape != held.shape:
                return None
            receive(name, layout.to_rows(value, n))
            return held

        receive(OUTPUT, passes.run(self.x_adv, hold))
        return received

    def _pass(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The layers' values, and the output."""
        known = self.known
        with (
            preserved(known.model, "eval", known.seed, x.device),
            torch.no_grad(),
            capture(known.model, known.layers, code=known.code) as values,
        ):
            output = known.task.read(call_model(known.model, x))
        return dict(values), output
