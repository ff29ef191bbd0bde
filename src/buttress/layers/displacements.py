"""The displacements of layers, collected batch by batch: one number for each input, layer and perturbation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from buttress.engine.preserved_model import Mode, preserved
from buttress.layers.capture import capture
from buttress.layers.known_layers import KnownLayers
from buttress.layers.measures import Measure
from buttress.layers.profile import LayerProfile
from buttress.layers.rows import UNPAIRED, Layout, Single, Unaligned, one_at_a_time
from buttress.layers.select import hidden_parts
from buttress.layers.watcher import LayerCallback
from buttress.model_call import call_model


class Displacements:
    """The numbers so far.

    Args:
        known: the network and the selection, and the layers that are found.
        perturbations: names.
        measure: of displacement.
        mode: of the model.
    """

    def __init__(self, known: KnownLayers, perturbations: Sequence[str], measure: Measure, mode: Mode) -> None:
        self.known, self.perturbations, self.measure, self.mode = known, list(perturbations), measure, mode
        self.sizes: list[int] = []
        self._centres: dict[str, Tensor] = {}
        self._rows: list[dict[tuple[str, str | None], Tensor]] = []  # the layer None is the input
        self._unpaired: dict[str, list[str]] = {}
        self._left_out: dict[str, str] = {}

    def centre(self, sample: Iterable[Tensor]) -> None:
        """Take the mean of each layer over a sample of inputs as the centre of the measure."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def add(name: str, rows: Tensor) -> None:
            total = rows.double().sum(0)
            if name not in sums or sums[name].shape == total.shape:
                sums[name] = sums[name] + total if name in sums else total
                counts[name] = counts.get(name, 0) + len(rows)

        for x in sample:
            add("", x)
            rows, alone = self._aligned(x, self._pass(x))
            for name, part in rows.items():
                add(name, part)
            for values in self._alone_in(x, alone):
                for name, one in values.items():
                    add(name, one.value[None])
        self._centres = {name: (total / counts[name]).float() for name, total in sums.items()}

    def open(self, x: Tensor, clean: dict[str, Tensor]) -> None:
        """Begin a batch with the layers of its clean pass."""
        self._x = x
        self.sizes.append(len(x))
        self._rows.append({})
        self._clean, alone = self._aligned(x, clean)
        self._alone = dict.fromkeys(alone)
        self._clean_alone: dict[str, list[Single | None]] = {}

    def column(self, perturbation: str, x_adv: Tensor) -> LayerCallback:
        """What to do with each layer of the perturbed pass: compare it at once, so that it need not be kept."""
        self._called: set[str] = set()
        self._compare(perturbation, None, self._x, x_adv)

        def compare(name: str, value: Tensor) -> Tensor:
            self._called.add(name)
            layout, clean = self.known.layout(name), self._clean.get(name)
            if clean is not None and isinstance(layout, Layout):
                rows = layout.to_rows(value, len(x_adv)) if layout.fits(value, len(x_adv)) else None
                if rows is not None and rows.shape == clean.shape:
                    self._compare(perturbation, name, clean, rows)
                else:
                    self._alone[name] = None
            elif name not in self._alone and name not in self._left_out:
                self._note_unpaired(perturbation, name)
            return value

        return compare

    def close(self, perturbation: str, x_adv: Tensor) -> None:
        """End the perturbed pass: compare what only inputs alone have a value of; the rest is not paired.

        Of the tokens that an expert sees others may be sent there when the input is perturbed: these are not compared.
        """
        for name in self._clean:
            if name not in self._called:
                self._note_unpaired(perturbation, name)
        if not self._alone:
            return
        if self.mode == "train" or not self.measure.by_input:
            why = "training mode" if self.mode == "train" else f"the measure {self.measure.name}"
            for name in self._alone:
                self._left_out[name] = f"has a value only for inputs alone, which {why} does not allow"
            return
        new = [name for name in self._alone if name not in self._clean_alone]
        self._clean_alone |= self._each(self._x, new)
        for name, perturbed in self._each(x_adv, list(self._alone)).items():
            values = torch.full((len(x_adv),), torch.nan)
            for k, (one, other) in enumerate(zip(self._clean_alone[name], perturbed, strict=True)):
                if one is not None and other is not None and one.pairs_with(other):
                    values[k] = self._displacement(name, one.value[None], other.value[None])
                elif one is not None or other is not None:
                    self._note_unpaired(perturbation, name)
            self._rows[-1][perturbation, name] = values

    def _each(self, x: Tensor, names: list[str]) -> dict[str, list[Single | None]]:
        """Each layer's value for each input alone; None where the input does not reach it."""
        each = self._alone_in(x, names)
        return {name: [values.get(name) for values in each] for name in names}

    def _alone_in(self, x: Tensor, names: list[str]) -> list[dict[str, Single]]:
        known = self.known
        return one_at_a_time(known.model, x, names, self.mode, known.seed, known.code) if names else []

    def _pass(self, x: Tensor) -> dict[str, Tensor]:
        with (
            preserved(self.known.model, self.mode, self.known.seed, x.device),
            torch.no_grad(),
            capture(self.known.model, self.known.layers, code=self.known.code) as values,
        ):
            call_model(self.known.model, x)
        return dict(values)

    def _aligned(self, x: Tensor, values: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Each layer's rows, and the names of those that have a value only for an input alone."""
        self.known.add(x, values)
        rows: dict[str, Tensor] = {}
        alone: list[str] = []
        for name, value in values.items():
            layout = self.known.layout(name)
            if isinstance(layout, Layout) and layout.fits(value, len(x)):
                rows[name] = layout.to_rows(value, len(x))
            elif isinstance(layout, Layout) or layout.one_at_a_time:
                alone.append(name)
            else:
                self._left_out[name] = layout.reason
        return rows, alone

    def _note_unpaired(self, perturbation: str, name: str) -> None:
        names = self._unpaired.setdefault(perturbation, [])
        if name not in names:
            names.append(name)

    def _displacement(self, name: str | None, clean: Tensor, perturbed: Tensor) -> Tensor:
        centre = self._centres.get(name or "")
        if self.measure.needs_centre and (centre is None or centre.shape != clean.shape[1:]):
            if name is not None:
                why = "is not called by" if centre is None else "has another shape for"
                self._left_out[name] = f"{why} some of the inputs, so there is no centre that is the mean over them"
            return torch.full((len(clean),), torch.nan)
        return self.measure(clean, perturbed, centre).float().cpu()

    def _compare(self, perturbation: str, name: str | None, clean: Tensor, perturbed: Tensor) -> None:
        if self.sizes[-1] >= self.measure.least:
            self._rows[-1][perturbation, name] = self._displacement(name, clean, perturbed)

    def profile(self, reference: int) -> LayerProfile:
        """Everything collected, in order."""
        names = self.known.names
        for name in names:
            layout = self.known.layout(name)
            if isinstance(layout, Unaligned) and not self._measured(name):
                seen = any(name in layers for layers in self._unpaired.values())
                self._left_out.setdefault(name, UNPAIRED.reason if seen else layout.unmeasured)
        found = [name for name in names if name not in self._left_out]
        keys: list[str | None] = [None, *found]
        positions = {key: k for k, key in enumerate(keys)}
        values = torch.full((len(self.perturbations), len(keys), sum(self.sizes)), torch.nan)
        start = 0
        for size, row in zip(self.sizes, self._rows, strict=True):
            for (perturbation, key), part in row.items():
                if key in positions:
                    values[self.perturbations.index(perturbation), positions[key], start : start + size] = part
            start += size
        paths = self.known.paths.only(found)
        return LayerProfile.of(
            found,
            self.perturbations,
            self.measure.name,
            values[:, 1:],
            values[:, 0],
            predecessors=paths.predecessors,
            crossed=paths.crossed,
            reference=reference,
            unpaired={
                perturbation: unpaired
                for perturbation, names in self._unpaired.items()
                if (unpaired := [name for name in names if name not in self._left_out])
            },
            left_out={
                **{name: self._left_out[name] for name in names if name in self._left_out},
                **hidden_parts(self.known.model),
            },
            missed=paths.missed,
        )

    def _measured(self, layer: str) -> bool:
        rows = (part for row in self._rows for (_, name), part in row.items() if name == layer)
        return any(bool(part.isfinite().any()) for part in rows)
