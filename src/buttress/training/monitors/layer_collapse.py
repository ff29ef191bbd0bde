"""Says when a layer stops telling inputs apart, as regularising its displacement can make it do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from buttress.layers.capture import capture, layer_names
from buttress.layers.measures import power_of_two, ratio, row_norms, to_rows
from buttress.layers.regularisers import finite_rows, spread
from buttress.layers.rows import Layout, layouts
from buttress.layers.select import LayerSelection, check_given
from buttress.model_call import call_model
from buttress.registry import monitor
from buttress.tasks.classes import Classification
from buttress.training.monitors.base import Action, Moment, Monitor
from buttress.validation import not_negative, number, one_of, whole

Then = Literal["note", "stop"]
COLLAPSED = "values hardly differ between inputs"
SPREAD, COMMON, DIMENSIONS = "spread ", "common ", "dimensions "  # of figures, before the layer's name
_LINE, _PLANE, _CLASSES = 1.5, 2.0, 4  # dimensions that are few, and were enough, for so many classes
_ONE_VALUE = 0.01  # of the root mean square distance from the mean: inputs closer than that are at one value


@dataclass(frozen=True)
class Variety:
    """How a layer's values differ between inputs; blind to the layer's scale.

    Attributes:
        spread: the root mean square distance of the values from their mean, relative to the root mean square of the
            values: 0 for a constant layer, near 1 where the mean is small beside the differences.
        common: the largest share of the inputs that are at one value, to a hundredth of that distance: 1 for a constant
            layer, and high for one that is 0 for most inputs, whose spread is large.
        dimensions: along how many directions the values differ, by the participation ratio of their covariance's
            eigenvalues, (sum of e)^2 / (sum of e^2): 1 where all values are on a line, 0 for a constant layer.
    """

    spread: float
    common: float
    dimensions: float

    @classmethod
    def of(cls, values: Tensor) -> Variety:
        """Of (N, ...) values; inputs whose values are not finite are left out."""
        rows = to_rows(values)
        rows = rows[finite_rows(rows)]
        everything = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        size, distance = row_norms(rows.flatten()) / max(len(rows), 1) ** 0.5, spread(rows, everything)
        if not len(rows):
            return cls(0.0, 1.0, 0.0)
        rows = rows - rows.mean(0)
        scale = power_of_two(rows.flatten())  # squares of 1e-25 are no float32 numbers
        rows, near = rows / scale, _ONE_VALUE * distance / scale.squeeze()
        products = rows @ rows.T
        lengths = products.diagonal()
        apart = lengths[:, None] + lengths - 2 * products
        common = (apart <= near.square() + torch.finfo(rows.dtype).eps * lengths).sum(1).max()
        dimensions = ratio(lengths.sum().square(), products.square().sum())
        return cls(float(ratio(distance, size)), int(common) / len(rows), float(dimensions))


@torch.no_grad()
def varieties(model: nn.Module, x: Tensor, layers: LayerSelection) -> dict[str, Variety]:
    """By layer, how its values differ between inputs; layers whose values have no part for each input are left out.

    Args:
        model: the network, in the mode that it is looked at in.
        x: (N, ...) inputs.
        layers: which layers.
    """
    where = layouts(model, x, layers)
    with capture(model, layers) as values:
        call_model(model, x)
    return {
        layer: Variety.of(layout.to_rows(value, len(x)))
        for layer, value in values.items()
        if isinstance(layout := where.get(layer), Layout) and layout.fits(value, len(x))
    }


@monitor("layer-collapse")
@dataclass(frozen=True, kw_only=True)
class LayerCollapse(Monitor):
    """Fires when a layer's values no longer differ between inputs; our own.

    `Variety` is taken on fixed training inputs, not augmented, after the first step and at the end of each epoch; the
    history has it as ``spread LAYER``, ``common LAYER`` and ``dimensions LAYER``. A layer has collapsed when

    - its spread is below ``share`` times the largest of its own so far and of the ``reference``;
    - the share of inputs at one value is nearer to 1 than to that of the largest class, which a layer may well map to
      one value (without classes, inputs of one truth count as a class); or
    - its dimensions beyond one are below ``share`` times those of the ``reference``; without a reference, in the
      classification of 4 or more classes, below 1.5 where they were 2 or more at the start.

    A layer that has collapsed, or was at one value from the start, is silent until it has recovered, which is said as
    well. One that is regularised from the start of training on may never have been as usual, so a ``reference`` from a
    training without the regularisation, as `harden` has one, is surer. Layers whose values do not fall into a part for
    each input are left out. Cost: one forward pass of ``inputs`` inputs an epoch, and those that tell which axis of a
    layer is the inputs'.

    Args:
        layers: "activations", "learnable", a name, a glob over names, or a list of these.
        share: of what is usual for it, below which a layer has collapsed.
        then: whether training goes on ("note") or ends ("stop").
        inputs: training inputs looked at, classes in proportion.
        reference: what is usual without regularisation: figures by their names in the history.
    """

    layers: str | Sequence[str] = "activations"
    share: float = 1 / 3
    then: Then = "note"
    inputs: int = 256
    reference: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_given(self.layers)
        number("share", self.share, "(0, 1)")
        one_of("then", self.then, get_args(Then))
        whole("inputs", self.inputs, 2)
        for name, value in self.reference.items():
            not_negative(f"the reference of {name}", value)

    def after_step(self, moment: Moment) -> Action | None:
        """How values differ at the start.

        Raises:
            UserError: for a layer that the network does not have.
        """
        if moment.step == 1:
            layer_names(moment.model, moment.batch.x[:2], self.layers)
            found, bound = self._look(moment)
            moment.memory["largest"] = {layer: now.spread for layer, now in found.items()}
            moment.memory["start"] = {layer: now.dimensions for layer, now in found.items()}
            moment.memory["collapsed"] = {layer: now.common > bound for layer, now in found.items()}
        return None

    def after_epoch(self, moment: Moment) -> Action | None:
        """Compare each layer with what is usual for it."""
        largest: dict[str, float] = moment.memory.setdefault("largest", {})
        before: dict[str, bool] = moment.memory.setdefault("collapsed", {})
        fired, recovered = [], []
        found, bound = self._look(moment)
        for layer, now in found.items():
            figures = {SPREAD: now.spread, COMMON: now.common, DIMENSIONS: now.dimensions}
            moment.figures.update({f"{kind}{layer}": value for kind, value in figures.items()})
            largest[layer] = max(now.spread, largest.get(layer, 0.0))
            usual = max(largest[layer], self.reference.get(f"{SPREAD}{layer}", 0.0))
            signs = []
            if now.spread < self.share * usual:
                signs.append(f"by {now.spread:.1%} of its size, usual are {usual:.1%}")
            if now.common > bound:
                signs.append(f"{now.common:.0%} of the inputs at one value")
            if now.dimensions < self._fewest_dimensions(layer, moment):
                signs.append(f"in {now.dimensions:.1f} dimensions")
            if signs and not before.get(layer, False):
                fired.append(f"{layer} ({'; '.join(signs)})")
            elif before.get(layer, False) and not signs:
                recovered.append(layer)
            before[layer] = bool(signs)
        return self._answer(fired, recovered)

    def _fewest_dimensions(self, layer: str, moment: Moment) -> float:
        """Below which a layer has collapsed."""
        usual = self.reference.get(f"{DIMENSIONS}{layer}")
        if usual is not None:
            return 1 + self.share * max(usual - 1, 0)
        start: dict[str, float] = moment.memory.get("start", {})
        many = type(moment.task) is Classification and len(moment.data.classes) >= _CLASSES
        # Of ordered classes a line may be all that is needed.
        return _LINE if many and start.get(layer, 0.0) >= _PLANE else 0.0

    def _answer(self, fired: list[str], recovered: list[str]) -> Action | None:
        back = f"values differ between inputs again at {', '.join(recovered)}" if recovered else ""
        if not fired:
            return Action("note", back) if back else None
        text = f"{COLLAPSED} at {', '.join(fired)}; where it is regularised, less of that is needed"
        text += f"; {back}" if back else ""
        return Action(self.then, text + ("; training stops" if self.then == "stop" else ""))

    def _look(self, moment: Moment) -> tuple[dict[str, Variety], float]:
        """By layer, how values differ now; and the share of inputs at one value above which a layer has collapsed."""
        part = moment.data.train.stratified(self.inputs, moment.seed)
        x, y, _ = part.take(torch.arange(len(part)))
        most = int(torch.unique(y.reshape(len(y), -1), dim=0, return_counts=True)[1].max()) / len(y)
        return varieties(moment.model, x.to(moment.batch.x), self.layers), (1 + most) / 2
