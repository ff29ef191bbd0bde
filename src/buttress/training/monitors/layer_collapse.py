"""Says when a layer stops telling inputs apart, as regularising its displacement can make it do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from buttress.layers.capture import capture, layer_names
from buttress.layers.measures import ratio, row_norms, to_rows
from buttress.layers.regularisers import finite_rows, spread
from buttress.layers.rows import Layout, layouts
from buttress.model_call import call_model
from buttress.registry import monitor
from buttress.training.monitors.base import Action, Moment, Monitor
from buttress.validation import number, one_of, whole

Then = Literal["note", "stop"]


@monitor("layer-collapse")
@dataclass(frozen=True, kw_only=True)
class LayerCollapse(Monitor):
    """Fires when a layer's spread over inputs has collapsed; our own.

    The spread is the root mean square distance of the layer's values from their mean, relative to the root mean square
    of the values: 0 for a constant layer (one that is 0 throughout among them), near 1 where the mean is small beside
    the differences, and blind to the layer's scale. It is taken on fixed training inputs, not augmented, after the
    first step and at the end of each epoch; the history has it as ``spread LAYER``. A layer has collapsed when it falls
    below ``share`` times its largest so far, and is silent from then on until it has recovered. Layers whose values do
    not fall into a part for each input are left out. Cost: one forward pass of ``inputs`` inputs an epoch, and those
    that tell which axis of a layer is the inputs'.

    Args:
        layers: "activations", "learnable", a glob over names, or a list of names.
        share: of its largest spread so far, below which a layer has collapsed.
        then: whether training goes on ("note") or ends ("stop").
        inputs: training inputs looked at, classes in proportion.
    """

    layers: str | Sequence[str] = "activations"
    share: float = 0.2
    then: Then = "note"
    inputs: int = 256

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        number("share", self.share, "(0, 1)")
        one_of("then", self.then, get_args(Then))
        whole("inputs", self.inputs, 2)

    def after_step(self, moment: Moment) -> Action | None:
        """What the spread is at the start.

        Raises:
            UserError: for a layer that the network does not have.
        """
        if moment.step == 1:
            layer_names(moment.model, moment.batch.x[:2], self.layers)
            moment.memory["largest"] = self._spreads(moment)
        return None

    def after_epoch(self, moment: Moment) -> Action | None:
        """Compare each layer with the largest spread that it had."""
        largest: dict[str, float] = moment.memory.setdefault("largest", {})
        before: dict[str, bool] = moment.memory.setdefault("collapsed", {})
        fired: list[str] = []
        for layer, now in self._spreads(moment).items():
            moment.figures[f"spread {layer}"] = now
            most = largest[layer] = max(now, largest.get(layer, now))
            collapsed = now < self.share * most
            if collapsed and not before.get(layer, False):
                fired.append(f"{layer} (by {now:.1%} of its size, once by {most:.1%})")
            before[layer] = collapsed
        if not fired:
            return None
        text = f"values no longer differ between inputs at {', '.join(fired)}: less regularisation of it is needed"
        return Action(self.then, text + ("; training stops" if self.then == "stop" else ""))

    def _spreads(self, moment: Moment) -> dict[str, float]:
        """By layer, its spread now."""
        part = moment.data.train.stratified(self.inputs, moment.seed)
        x = part.take(torch.arange(len(part)))[0].to(moment.batch.x)
        where = layouts(moment.model, x, self.layers)
        with torch.no_grad(), capture(moment.model, self.layers) as values:
            call_model(moment.model, x)
        found: dict[str, float] = {}
        for layer, value in values.items():
            layout = where.get(layer)
            if isinstance(layout, Layout) and layout.fits(value, len(x)):
                rows = to_rows(layout.to_rows(value, len(x)))
                finite = finite_rows(rows)
                rows = rows[finite]
                size = row_norms(rows.flatten()) / max(len(rows), 1) ** 0.5
                found[layer] = float(ratio(spread(rows, finite[finite]), size))
        return found
